"""Starting a process that answers with one JSON line, and surviving one that does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asterisk

LONGEST_ANSWER = 64 << 20


class CellError(Exception):
    """A process that gave no answer; the message is one line."""


def ask(
    module: str,
    spec: Mapping[str, Any],
    timeout: float | None,
    *,
    quiet: bool = True,
    python: Sequence[str] = (sys.executable,),
) -> dict[str, Any]:
    """Run ``python -m module`` with ``spec`` on its stdin and return the object it prints.

    Blocks in ``communicate``: a parent that polls slows its child down where cores are few.
    CellError if the process crashes, takes more than ``timeout`` seconds, prints anything but one
    JSON object, or answers with an ``error``. Unless ``quiet``, its stderr is the caller's.
    """
    command = [*python, "-P", "-m", module]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe if quiet else None,
        env=environment(python[0]),
    ) as process:
        try:
            out, noise = process.communicate(json.dumps(spec).encode(), timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise CellError(f"gave no answer in {timeout:g} s and was stopped") from None
        except BaseException:
            process.kill()
            raise
    return _answer(process.returncode, out, noise or b"")


def environment(python: str) -> dict[str, str] | None:
    """Return what another interpreter needs to find this package; None for this interpreter.

    Nothing from a site-packages folder, where everything else that is installed here would come
    with it: there the package has to be installed for the other interpreter as well.
    """
    home = Path(asterisk.__file__).parents[1]
    if python == sys.executable or home.name in ("site-packages", "dist-packages"):
        return None
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _answer(status: int, out: bytes, noise: bytes) -> dict[str, Any]:
    if status:
        last = noise.decode("utf-8", "replace").strip().splitlines()[-1:]
        told = f": {last[0].strip()[:200]}" if last else ""
        raise CellError(f"{_cause(status)}{told}")
    try:
        answer = json.loads(out) if len(out) <= LONGEST_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise CellError(f"answered with {out[:40]!r} instead of a JSON object")
    if "error" in answer:
        raise CellError(str(answer["error"]))
    return answer


def _cause(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"crashed ({signal.Signals(-status).name})"
    except ValueError:
        return f"crashed (signal {-status})"
