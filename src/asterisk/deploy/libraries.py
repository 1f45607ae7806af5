"""Whether every native library of a bundle would load on its board, told from their headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asterisk.common.errors import EngineError
from asterisk.deploy import elf, openmp, wheels
from asterisk.deploy.boards import Board

PAGE_SIZE = 16384  # borne by every bundle: a Pi 5's kernel has such pages
SYSTEM = {  # what is on any system with that Python
    *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
    "ld-linux-aarch64.so.1",
    "libz.so.1",  # Python's own zlib module is linked with it
}
PACKAGES = {  # what slim systems may lack, and Debian's package of it
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
    openmp.SONAME: openmp.PACKAGE,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What all libraries together ask for: ``system`` names sonames and Debian's packages."""

    glibc: tuple[int, ...]
    page_size: int
    system: dict[str, str]


def found(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of every ELF file under ``root``."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and elf.is_library(path):
            yield path.name, path


def needs(root: Path) -> set[str]:
    """Return the sonames that the libraries under ``root`` need and do not bring."""
    here = dict(found(root))
    return {soname for path in here.values() for soname in elf.read(path).needed} - set(here)


def check(root: Path, board: Board, python: str) -> Asked:
    """Return what the libraries ask for; EngineError, one line, for one that would not load."""
    here = dict(found(root))
    glibc: tuple[int, ...] = (2, 17)
    page_size = 1 << 30
    system: dict[str, str] = {}
    for name, path in here.items():
        it = elf.read(path)
        if it.machine != elf.AARCH64:
            raise EngineError(f"{name} is not for {wheels.MACHINE}")
        page_size = min(page_size, it.alignment)
        if it.alignment < max(PAGE_SIZE, board.page_size):
            raise EngineError(
                f"{name} is aligned to {it.alignment >> 10} KiB: a kernel with pages of "
                f"{max(PAGE_SIZE, board.page_size) >> 10} KiB, as {board.title}'s, cannot load it"
            )
        for family, most in (("GLIBC", wheels.GLIBC), ("GLIBCXX", wheels.GLIBCXX)):
            asked = it.versions.get(family, ())
            if asked > most[python]:
                raise EngineError(
                    f"{name} needs {family} {'.'.join(map(str, asked))}; "
                    f"{wheels.SUITES[python]} has {'.'.join(map(str, most[python]))}"
                )
        glibc = max(glibc, it.versions.get("GLIBC", ()))
        for soname in it.needed:
            if soname in here or soname in SYSTEM:
                continue
            if soname not in PACKAGES:
                raise EngineError(f"{name} needs {soname}, which nothing brings")
            system[soname] = PACKAGES[soname]
    return Asked(glibc[:2], page_size, system)
