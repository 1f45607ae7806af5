"""A Raspberry Pi's system without the board: ``python -m benchmarks.board_root``.

The userland of a release of Debian for arm64, with the Python and glibc of the Raspberry Pi OS made
of it, and qemu. There is neither numpy nor an engine in it, and no libgomp: what a deployment needs
of these it has to bring. It stays beside what `benchmarks.emulation` makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from asterisk.bench.targets import Unavailable
from asterisk.bench.targets.emulated import BACKPORTS
from asterisk.common.debian import Apt, call, unpack
from asterisk.common.files import cache_folder
from asterisk.common.terminal import report
from benchmarks.emulation import MOUNTS, emulators, make_once, print_path, versions

PACKAGES = (
    *("base-files", "dash", "coreutils", "findutils", "grep", "sed", "tar", "gzip", "xz-utils"),
    *("libc-bin", "util-linux", "procps", "python3", "libstdc++6"),
)
EMULATOR = "qemu-aarch64"
# The files are under usr/ and the short path is a link, as on every installed Debian.
MERGED = ("bin", "sbin", "lib")
MOUNTED = (*MOUNTS, ".proc", "home/pi", "dev/shm")
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n",
    "group": "root:x:0:\npi:x:1000:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n",
    "hostname": "raspberrypi\n",
}
COMPILED = (
    *("asyncio", "collections", "concurrent", "concurrent/futures", "ctypes", "email", "encodings"),
    *("http", "importlib", "importlib/metadata", "json", "logging", "multiprocessing", "re"),
    *("urllib", "zoneinfo"),
)
EDITION = 2  # to be raised when this module makes something else of the same names
HOW = "make it with: python -m benchmarks.board_root"


@dataclass(frozen=True)
class System:
    """A release: Debian's name of it and its Python."""

    suite: str
    python: str


SYSTEMS = (System("bookworm", "3.11"), System("trixie", "3.13"))


def path(system: System) -> Path:
    """Return where the files are, or would be: named after all they are made of."""
    made_of = [EDITION, astuple(system), BACKPORTS, PACKAGES, MERGED, MOUNTED, ACCOUNTS]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return cache_folder() / f"board-{system.suite}-{digest[:12]}"


def find(system: System) -> Path:
    """Return the files' folder; Unavailable where it has not been made."""
    folder = path(system)
    if not (folder / "made.json").is_file():
        raise Unavailable(f"no stand-in for a board with {system.suite} here yet; {HOW}")
    return folder


def make(system: System) -> Path:
    """Make the folder if it does not exist; EngineError, one line, where that cannot be done."""
    return make_once(path(system), partial(_fill, system))


def _fill(system: System, staging: Path) -> dict[str, str]:
    work = staging / "work"
    work.mkdir()
    root = staging / "root"
    root.mkdir()
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    report(f"emulation: {system.suite}'s packages for arm64")
    debs = Apt(work / "arm64", "arm64", system.suite).download(PACKAGES)
    for deb in debs:
        unpack(deb, root)
    for name in MOUNTED:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in ACCOUNTS.items():
        (root / "etc" / name).write_text(text, "ascii")
    sh = root / "bin" / "sh"
    if not sh.is_symlink():  # dash leaves the link to its maintainer script
        sh.symlink_to("dash")
    report("emulation: qemu")
    qemu = emulators(work, staging, (EMULATOR,))
    report("emulation: compiling Python's library, emulated")
    _compile(staging / EMULATOR, root, system.python)
    made = versions((*debs, qemu))
    shutil.rmtree(work)
    return made


def _compile(qemu: Path, root: Path, version: str) -> None:
    """Do what python3's maintainer script would: or each start compiles the library again."""
    library = root / "usr" / "lib" / f"python{version}"
    python: list[str | Path] = [qemu, "-L", root, root / "usr" / "bin" / f"python{version}"]
    folders = [library, *(library / name for name in COMPILED)]
    call(
        [*python, *("-m", "compileall", "-q", "-l", "-s", root, "-p", "/"), *folders],
        env={**os.environ, "PYTHONHOME": str(root / "usr")},
    )


def make_all() -> Path:
    """Make every release's; return the folder they are in."""
    for system in SYSTEMS:
        make(system)
    return cache_folder()


if __name__ == "__main__":
    sys.exit(print_path("emulation", make_all))
