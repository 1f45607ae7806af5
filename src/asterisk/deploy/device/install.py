"""Install an unpacked bundle on this device: ``python3 install.py [--prefix DIR]``.

Standard library only, and also runs on Pythons that are too old, to say so. In a bundle this is one
file, which the modules that it imports are part of.

::

    PREFIX/versions/<id>/   bundle.json, site, lib, artifact, bin
    PREFIX/current          -> versions/<id>
    PREFIX/previous         -> versions/<id>, for --rollback
    PREFIX/bin              -> current/bin
    PREFIX/report.jsonl     a line an attempt
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asterisk.deploy.device.manifest import VERIFY, Refusal, check_device, read_manifest, reason_of
from asterisk.deploy.device.versions import Installation, sync_tree

VERIFY_SECONDS = 900  # a slow card, or an emulated machine
ENGINES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "gguf": "xllamacpp"}
FAULTS: dict[int, str] = {
    signal.SIGILL: "an illegal instruction (SIGILL)",
    signal.SIGSEGV: "a segmentation fault (SIGSEGV)",
    signal.SIGBUS: "a bus error (SIGBUS)",
    signal.SIGABRT: "an abort (SIGABRT)",
}
PYTHON_VARIABLES = {
    *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
    "ASTERISK_PYTHONPATH",  # of the launchers
}


def verify(root: Path, *, compile: bool = False) -> str:
    """Have a version embed its golden texts; return what it says, Refusal if it fails."""
    environment = {key: it for key, it in os.environ.items() if key not in PYTHON_VARIABLES}
    environment["PYTHONFAULTHANDLER"] = "1"
    if compile:  # Python keeps the modules that it compiles on the way
        environment["PYTHONDONTWRITEBYTECODE"] = ""
    artifact = str(root / "artifact")
    try:
        process = subprocess.run(
            [str(root / VERIFY), artifact],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERIFY_SECONDS,
            env=environment,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refusal(f"verification took more than {VERIFY_SECONDS} s") from None
    except OSError as failure:
        raise Refusal(f"verification cannot be started: {failure}") from None
    status = process.returncode
    text = (process.stderr if status else process.stdout).decode("utf-8", "replace")
    last = ([line for line in text.splitlines() if line.strip()] or [""])[-1].strip()[:500]
    if -status in FAULTS:
        what = f"{faulty_package(root, text)} dies of {FAULTS[-status]}"
        raise Refusal(f"{what} on this processor; nothing was replaced")
    if status < 0:
        with contextlib.suppress(ValueError):
            last = f"it was ended by {signal.Signals(-status).name}"
    if status:
        raise Refusal(f"verification failed: {last or f'status {status}'}")
    return last.replace(f"{artifact}: ", "")


def faulty_package(root: Path, trace: str) -> str:
    """Return which package's code ran in the end, by the trace of Python's faulthandler."""
    manifest = read_manifest(root)
    packages = {name.lower().replace("_", "-"): name for name in manifest["packages"]}
    others, _, current = trace.partition("Current thread")
    frames = re.findall(r"/site/(\w+)[/.]", current + others)
    names = [name.lower().replace("_", "-") for name in frames]
    # asterisk itself calls llama.cpp, without a module of its engine between.
    for name in (*names, ENGINES.get(manifest["format"])):
        if name in packages:
            return f"{packages[name]} {manifest['packages'][packages[name]]}"
    return f"the {manifest['format']} engine"


def use(
    installation: Installation, id: str, serve: Callable[[], object], *, new: bool = False
) -> str:
    """Make a version current, verify it once more and have it serve; on failure, the old one."""
    current, previous = map(installation.linked, ("current", "previous"))
    installation.switch(id)
    try:
        verified = verify(installation.prefix / "current")
        serve()
    except BaseException as failure:
        try:
            installation.restore(current, previous)
            if new and current != id:
                installation.discard(id)
        except OSError as reason:
            used = installation.linked("current") or "nothing"
            state = f"{used} is in use, for going back failed: {reason_of(reason)}"
            raise Refusal(str(failure), state) from None
        raise
    return verified


def install(
    installation: Installation, source: Path, keep: int, serve: Callable[[], object]
) -> tuple[str, str]:
    """Install the bundle that lies in ``source``; return its id and what there is to say."""
    manifest = read_manifest(source)
    check_device(manifest)
    installation.check()
    installation.check_space(manifest)
    id = manifest["id"]
    with installation.locked():
        try:
            complete = installation.is_complete(id)
            if not complete:
                staged = installation.stage(manifest, source)
                verify(staged, compile=True)
                sync_tree(staged)  # with what was compiled
                installation.put(staged, id)
            elif installation.linked("current") != id:
                verify(installation.versions / id)
            verified = use(installation, id, serve, new=not complete)
            with contextlib.suppress(OSError):  # what is too much goes the next time
                installation.prune(keep)
                installation.tidy()
        except BaseException:
            with contextlib.suppress(OSError):
                installation.tidy()
            with contextlib.suppress(OSError):
                if not installation.ids():
                    installation.clear()
            raise
    what = "{name} {format} {recipe}, {version}".format(**manifest)
    how = "already" if complete else "installed"
    return id, f"{what}: {how} in {installation.prefix}; {verified}"


def rollback(installation: Installation, serve: Callable[[], object]) -> tuple[str, str]:
    """Go back to the previous version; return its id and what there is to say."""
    with installation.locked():
        id = installation.previous()
        if id is None:
            raise Refusal(f"there is no earlier version in {installation.prefix}")
        if not installation.is_complete(id):
            raise Refusal(f"the earlier version, {id}, is damaged: install it again")
        verify(installation.versions / id)
        verified = use(installation, id, serve)
        recipe = installation.manifest(id)["recipe"]
    return id, f"back to {recipe} in {installation.prefix}; {verified}"


def undo(
    installation: Installation, id: str, current: str, previous: str
) -> tuple[str | None, str]:
    """Make both links what they were before ``id`` was installed, and discard it; "-" is none."""
    ids = installation.ids()
    if any(it not in ("-", *ids) for it in (current, previous)) or id == current:
        raise Refusal(f"{installation.prefix} has no such version any more")
    links = [None if it == "-" else it for it in (current, previous)]
    with installation.locked():
        installation.restore(*links)
        if id in installation.ids() and id not in links:
            installation.discard(id)
        if not installation.ids():
            installation.clear()
    return links[0], f"as it was in {installation.prefix}"


def remove(installation: Installation) -> tuple[str | None, str]:
    """Remove everything that was installed, and nothing else."""
    installation.check()
    if not installation.prefix.is_dir():
        return None, f"nothing is installed in {installation.prefix}"
    with installation.locked():
        id = installation.linked("current")
        installation.clear()
    return id, f"removed from {installation.prefix}"


def execute(
    argv: Sequence[str] | None, source: Path, serve: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Carry out a command line; return what there is to say, in JSON's types, failures too.

    ``source`` is the folder of the bundle. ``serve`` is called when another version is in use: if
    it fails, the old one is again.
    """
    parser = argparse.ArgumentParser(
        prog="install.py", description="Install an unpacked bundle on this device."
    )
    parser.add_argument("--prefix", default="~/.local/share/asterisk", help="(%(default)s)")
    parser.add_argument("--keep", type=int, default=2, help="versions to keep (%(default)s)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--inventory", action="store_true", help="print what is installed")
    action.add_argument("--rollback", action="store_true", help="go back to the previous version")
    action.add_argument("--remove", action="store_true", help="remove everything again")
    action.add_argument("--prune", action="store_true", help="only remove versions over --keep")
    action.add_argument(
        "--undo",
        nargs=3,
        metavar=("ID", "CURRENT", "PREVIOUS"),
        help="make the links what they were before ID was installed, and discard it (-: none)",
    )
    arguments = parser.parse_args(argv)
    if arguments.keep < 1:
        parser.error("--keep must be at least 1")
    installation: Installation | None = None
    id: str | None = None
    ok, state = False, ""
    try:
        installation = Installation(arguments.prefix)
        if arguments.inventory:
            return installation.inventory()
        if arguments.rollback:
            id, line = rollback(installation, serve)
        elif arguments.remove:
            id, line = remove(installation)
        elif arguments.undo:
            id, line = undo(installation, *arguments.undo)
        elif arguments.prune:
            with installation.locked():
                installation.prune(arguments.keep)
            id, line = installation.linked("current"), f"pruned {installation.prefix}"
        else:
            id, line = install(installation, source, arguments.keep, serve)
        ok = True
    except Refusal as refusal:
        line, state = str(refusal), refusal.state
    except OSError as failure:
        line = reason_of(failure)
    except (KeyboardInterrupt, SystemExit):
        line = "interrupted"
    answer = {"ok": ok, "id": id, "line": " ".join(line.split())}
    if state:
        answer["state"] = state
    if installation is not None and not (ok and (arguments.remove or arguments.prune)):
        installation.report(json.dumps(answer))
    return answer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; print one JSON line, and on failure the reason alone as well."""
    own = globals().get("__file__")  # there is none where this comes from standard input
    answer = execute(argv, Path(os.path.realpath(own or "")).parent)
    status = 0 if answer.get("ok", True) else 1
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:  # the reader, such as head, has already left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more as it ends
        status = 1
    if not answer.get("ok", True):
        print(f"install.py: {answer['line']}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
