"""What `emu:` targets run on, made once: ``python -m benchmarks.emulation [--counting]``.

A Debian arm64 root with Python, this project's engines for AArch64 and a qemu that is new enough
(Bookworm's own, 7.2, crashes in two of the engines). Packages are unpacked, never installed. With
``--counting``: the same qemu, built with the plugin in ``instructions.c``, which Debian's cannot
load. That needs a C compiler, ninja, pkg-config and GLib's headers, and some minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from asterisk.bench.targets.emulated import (
    ABIS,
    BACKPORTS,
    CONFIGURE,
    EMULATORS,
    INSTRUCTIONS,
    PACKAGES,
    PLATFORMS,
    SUITE,
    counting_path,
    find_counting,
    root_path,
    wheels,
)
from asterisk.common.debian import KEYRING, NEEDED, Apt, call, mirror, unpack
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report

PYTHON = "3.11"  # the suite's
MOUNTS = ("proc", "sys", "dev", "tmp", "work")
LOADER = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
BUILD_TOOLS = {"cc": "gcc", "ninja": "ninja-build", "pkg-config": "pkg-config", "tar": "tar"}
BUILD_PACKAGES = ("meson", "setuptools", "wheel", "pycotap")


def make() -> Path:
    """Make the folder if it does not exist; EngineError, one line, where that cannot be done."""
    return make_once(root_path(), _fill)


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


def make_counting() -> Path:
    """Build it if it does not exist; EngineError, one line, where that cannot be done."""
    if folder := find_counting():
        return folder
    for tool, package in BUILD_TOOLS.items():
        if shutil.which(tool) is None:
            raise EngineError(f"{tool} is needed to build qemu; install {package}")
    call(["pkg-config", "--exists", "--print-errors", "glib-2.0"])
    return make_once(counting_path(), _build)


def _build(folder: Path) -> dict[str, str]:
    report("counting: qemu's source")
    work = folder / "work"
    apt = Apt(work / "apt", "amd64", BACKPORTS)
    signed = f"[signed-by={KEYRING}] {mirror()} {BACKPORTS} main\n"
    (apt.folder / "sources.list").write_text(f"deb-src {signed}", "utf-8")
    apt.run("update")
    apt.run("source", "--download-only", "--tar-only", "qemu")  # checks what Debian signed
    (archive,) = (apt.folder / "archives").glob("qemu_*.orig.tar.*")
    source, build = work / "source", work / "source" / "build"
    build.mkdir(parents=True)
    call(["tar", "-x", "--strip-components=1", "-C", str(source), "-f", str(archive)])
    report("counting: building qemu with plugins")
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    call([python, "-m", "pip", "install", "--quiet", *BUILD_PACKAGES])
    paths = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": paths}
    call(["../configure", f"--python={python}", *CONFIGURE], cwd=build, env=environment)
    call(["ninja", "qemu-aarch64"], cwd=build, env=environment)
    _install(build / "qemu-aarch64", source / "include", folder)
    shutil.rmtree(work)
    return versions([archive])


def _install(qemu: Path, headers: Path, folder: Path) -> None:
    """Put qemu, the libraries it loads and the plugin into ``folder``, which needs nothing else."""
    libraries = [Path(path) for path in LOADER.findall(call(["ldd", str(qemu)]))]
    # glibc opens the last one itself when a thread ends.
    libraries.append(Path(call(["cc", "-print-file-name=libgcc_s.so.1"]).strip()))
    for library in libraries:
        loader = library.name.startswith("ld-")
        shutil.copy2(library.resolve(), folder / ("loader" if loader else library.name))
    includes = [f"-I{headers}", f"-I{headers}/qemu"]
    includes += call(["pkg-config", "--cflags", "glib-2.0"]).split()
    plugin = folder / "instructions.so"
    call(["cc", "-O2", "-shared", "-fPIC", *includes, "-o", str(plugin), str(INSTRUCTIONS)])
    shutil.copy2(qemu, folder)


if __name__ == "__main__":
    counting = sys.argv[1:] == ["--counting"]
    if sys.argv[1:] and not counting:
        sys.exit(__doc__)
    name = "counting" if counting else "emulation"
    sys.exit(print_path(name, make_counting if counting else make))
