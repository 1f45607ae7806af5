"""The emulated machines' files: ``python -m asterisk.bench.targets.root`` makes them once.

A Debian arm64 root with Python, this project's engines for AArch64 and a qemu that is new enough
(Bookworm's own, 7.2, crashes in two of the engines). Packages are unpacked, never installed. It
stays outside the clone, in a folder named after a digest of everything it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import requires
from pathlib import Path

from asterisk.bench.targets import Unavailable
from asterisk.common.debian import NEEDED, Apt, call, unpack
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report

SUITE, BACKPORTS = "bookworm", "bookworm-backports"
PACKAGES = ("python3", "libstdc++6", "libgomp1")
PYTHON = "3.11"  # the suite's
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
ABIS = ("cp311", "abi3", "none")
EXTRAS = ("onnx", "tflite", "gguf")
NUMPY = "numpy==2.4.6"
EMULATORS = ("qemu-aarch64", "qemu-x86_64")
MOUNTS = ("proc", "sys", "dev", "tmp", "work")
EDITION = 1  # to be raised when this module makes something else of the same names
HOW = "make it with: python -m asterisk.bench.targets.root"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+==[0-9.]+); extra == [\"'](\w+)[\"']")


def wheels() -> list[str]:
    """Return the pinned requirements of the engines, numpy among them."""
    lines = map(str.strip, requires("asterisk-edge") or ())
    found = {it[2]: it[1] for it in map(_REQUIREMENT.fullmatch, lines) if it}
    return [NUMPY, *(found[extra] for extra in EXTRAS)]


def cache() -> Path:
    """Return the folder outside the clone for everything that is downloaded."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "asterisk"


def path() -> Path:
    """Return where the files are, or would be: named after all they are made of."""
    made_of = [EDITION, SUITE, BACKPORTS, PACKAGES, PLATFORMS, ABIS, wheels(), EMULATORS]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return cache() / f"emulation-{digest[:12]}"


def find() -> Path:
    """Return the files' folder; Unavailable where it has not been made."""
    folder = path()
    if not (folder / "made.json").is_file():
        raise Unavailable(f"no emulated machine here yet; {HOW}")
    return folder


def make() -> Path:
    """Make the folder if it does not exist; EngineError, one line, where that cannot be done."""
    return make_once(path(), _fill)


def make_once(folder: Path, fill: Callable[[Path], dict[str, str]]) -> Path:
    """Return ``folder``, made once by ``fill``, which fills one and returns packages' versions."""
    if (folder / "made.json").is_file():
        return folder
    for tool in NEEDED:
        if shutil.which(tool) is None:
            raise EngineError(f"{tool} is needed for an emulated machine and is not here")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        made = fill(staging)
        (staging / "made.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        staging.chmod(0o755)
        staging.rename(folder)
    except OSError:
        if not (folder / "made.json").is_file():  # another process was not first
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _fill(staging: Path) -> dict[str, str]:
    work, root = staging / "work", staging / "root"
    for folder in (work, *(root / name for name in MOUNTS)):
        folder.mkdir(parents=True)
    report("emulation: Debian's packages for arm64")
    debs = Apt(work / "arm64", "arm64", SUITE).download(PACKAGES)
    for deb in debs:
        unpack(deb, root)
    report("emulation: qemu")
    qemu = emulators(work, staging, EMULATORS)
    report("emulation: the engines' wheels for AArch64")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [f"--platform={name}" for name in PLATFORMS] + [f"--abi={name}" for name in ABIS]
    call([*command, "--dest", str(work / "wheels"), *wheels()])
    for wheel in sorted((work / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / "site")
    shutil.rmtree(work)
    return versions((*debs, qemu))


def emulators(work: Path, folder: Path, names: Sequence[str]) -> Path:
    """Put qemu's programs ``names`` into ``folder``; return the package they are from."""
    architecture = call(["dpkg", "--print-architecture"]).strip()
    (qemu,) = Apt(work / "host", architecture, BACKPORTS).fetch("qemu-user")
    unpack(qemu, work / "qemu", *(f"./usr/bin/{name}" for name in names))
    for name in names:
        shutil.move(work / "qemu" / "usr" / "bin" / name, folder / name)
    return qemu


def versions(debs: Iterable[Path]) -> dict[str, str]:
    """Return the packages' versions, which their files' names have."""
    return {deb.name.partition("_")[0]: deb.name.split("_")[1] for deb in debs}


def print_path(name: str, make: Callable[[], Path]) -> int:
    """Print the folder that ``make`` returns, or in one line why there is none; return a status."""
    try:
        print(make())
    except EngineError as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(print_path("emulation", make))
