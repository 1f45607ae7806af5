"""Counting instructions: qemu built with plugins, and what its plugin writes.

Debian's qemu-user is static and loads no plugin, so ``python -m asterisk.bench.targets.plugin``
builds the same version from Debian's source, with the plugin in ``instructions.c``. That needs a C
compiler, ninja, pkg-config and GLib's headers, and some minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from asterisk.bench.spawn import CellError
from asterisk.bench.targets.root import BACKPORTS, KEYRING, Apt, cache, call, mirror, tell_where
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report as tell

SOURCE = Path(__file__).with_name("instructions.c")
FOLDER = "counting"  # of the session
COUNTS = "instructions.txt"  # what the plugin writes, there
LOADER = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
NEEDED = {"cc": "gcc", "ninja": "ninja-build", "pkg-config": "pkg-config", "tar": "tar"}
BUILD_PACKAGES = ("meson", "setuptools", "wheel", "pycotap")
CONFIGURE = (
    *("--target-list=aarch64-linux-user", "--without-default-features", "--enable-plugins"),
    *("--disable-system", "--disable-tools", "--disable-docs", "--disable-install-blobs"),
    *("--disable-download", "--disable-debug-info", "-Doptimization=1"),
)
EDITION = 1


def place() -> Path:
    """Return where the build is, or would be: named after all it is made of."""
    made_of = json.dumps([EDITION, BACKPORTS, CONFIGURE]).encode() + SOURCE.read_bytes()
    return cache() / f"counting-{hashlib.sha256(made_of).hexdigest()[:12]}"


def find() -> Path | None:
    """Return the build's folder, None where there is none."""
    folder = place()
    return folder if (folder / "qemu-aarch64").is_file() else None


def command(work: str) -> list[str]:
    """Return the words that start it where the session's folder is ``work``, libraries and all."""
    here = f"{work}/{FOLDER}"
    counting = f"{here}/instructions.so,out={work}/{COUNTS}"
    return [f"{here}/loader", "--library-path", here, f"{here}/qemu-aarch64", "-plugin", counting]


def instructions(path: Path, marked: Sequence[str]) -> dict[str, float]:
    """Return million instructions a call by bucket, the smallest of its calls.

    ``path`` has the counter at each mark; two marks a call, in the order of ``marked``. CellError
    if they do not match.
    """
    try:
        counters = [int(line) for line in path.read_text("ascii").split()]
    except (OSError, ValueError):
        counters = []
    if len(counters) != 2 * len(marked):
        raise CellError(f"{len(counters)} marks were counted instead of {2 * len(marked)}")
    calls: dict[str, list[int]] = {}
    for number, bucket in enumerate(marked):
        calls.setdefault(bucket, []).append(counters[2 * number + 1] - counters[2 * number])
    return {bucket: min(each) / 1e6 for bucket, each in calls.items()}


def make() -> Path:
    """Build it if it is not there; EngineError, one line, where that cannot be done."""
    folder = place()
    if find():
        return folder
    for tool, package in NEEDED.items():
        if shutil.which(tool) is None:
            raise EngineError(f"{tool} is needed to build qemu; install {package}")
    call(["pkg-config", "--exists", "--print-errors", "glib-2.0"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".counting-", dir=folder.parent))
    try:
        done = staging / "done"
        done.mkdir()
        _build(staging, done)
        done.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _build(staging: Path, done: Path) -> None:
    tell("counting: qemu's source")
    source = staging / "source"
    source.mkdir()
    call(["tar", "-x", "--strip-components=1", "-C", str(source), "-f", str(fetch(staging))])
    tell("counting: building qemu with plugins")
    venv.create(staging / "venv", with_pip=True)
    python = staging / "venv" / "bin" / "python"
    call([python, "-m", "pip", "install", "--quiet", *BUILD_PACKAGES])
    build = source / "build"
    build.mkdir()
    paths = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": paths}
    call(["../configure", f"--python={python}", *CONFIGURE], cwd=build, env=environment)
    call(["ninja", "qemu-aarch64"], cwd=build, env=environment)
    install(build / "qemu-aarch64", source / "include", done)


def fetch(staging: Path) -> Path:
    """Download the source whose checksum Debian signed; return its archive."""
    apt = Apt(staging / "apt", "amd64", BACKPORTS)
    signed = f"[signed-by={KEYRING}] {mirror()} {BACKPORTS} main\n"
    (apt.folder / "sources.list").write_text(f"deb-src {signed}", "utf-8")
    apt.run("update")
    apt.run("source", "--download-only", "--tar-only", "qemu")
    (archive,) = (apt.folder / "archives").glob("qemu_*.orig.tar.*")
    return archive


def install(qemu: Path, headers: Path, folder: Path) -> None:
    """Put qemu, the libraries it loads and the plugin into ``folder``, which needs nothing else."""
    libraries = [Path(path) for path in LOADER.findall(call(["ldd", str(qemu)]))]
    for library in libraries:
        shutil.copy2(library.resolve(), folder / library.name)
    # glibc opens this one itself when a thread ends.
    needed_at_exit = Path(call(["cc", "-print-file-name=libgcc_s.so.1"]).strip())
    shutil.copy2(needed_at_exit.resolve(), folder / needed_at_exit.name)
    loader = next(library for library in libraries if library.name.startswith("ld-"))
    (folder / loader.name).rename(folder / "loader")
    includes = [f"-I{headers}", f"-I{headers}/qemu"]
    includes += call(["pkg-config", "--cflags", "glib-2.0"]).split()
    plugin = folder / "instructions.so"
    call(["cc", "-O2", "-shared", "-fPIC", *includes, "-o", str(plugin), str(SOURCE)])
    shutil.copy2(qemu, folder / "qemu-aarch64")  # last: it says that all is there


if __name__ == "__main__":
    sys.exit(tell_where("counting", make))
