"""A bundle's native libraries: what they ask of the system that loads them, and libgomp.

That is read by pyelftools from the tables that the loader reads, those of the program headers.
Sections, which may have been stripped or say something else, are not looked at.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from asterisk.common import debian
from asterisk.common.errors import ArtifactError, EngineError, OutputError, one_line
from asterisk.common.files import cache_folder, replacing_folder
from asterisk.common.plugins import require
from asterisk.deploy import wheels
from asterisk.deploy.boards import MACHINE, Board

AARCH64, X86_64 = "EM_AARCH64", "EM_X86_64"
LARGEST_LIBRARY = 1 << 30
MOST_READS, LONGEST_READ, LONGEST_NAME = 1 << 14, 1 << 12, 512
PAGE_SIZE = 16384  # borne by every bundle: a Pi 5's kernel has such pages
LIBGOMP = "libgomp.so.1"
LIBGOMP_LICENCE = "libgomp.copyright"
SYSTEM = {  # what is on any system with that Python
    *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
    "ld-linux-aarch64.so.1",
    "libz.so.1",  # Python's own zlib module is linked with it
}
PACKAGES = {  # what slim systems may lack, and Debian's package of it
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
    LIBGOMP: "libgomp1",
}


class Library(NamedTuple):
    """What a library asks of the system."""

    machine: str  # as ELF names it
    alignment: int  # the least of the loaded segments', in bytes
    needed: tuple[str, ...]  # sonames to be loaded first
    versions: dict[str, tuple[int, ...]]  # the highest symbol's, as {"GLIBC": (2, 34)}


def read(path: Path) -> Library:
    """Read the library ``path``; ArtifactError, one line, if it is none or is malformed."""
    require("elftools", "deploy")
    try:
        with path.open("rb") as file:
            return _read(_BoundedFile(file))
    except Exception as failure:  # of a dozen kinds, for files that lie
        reason = one_line(failure)[:200]
        raise ArtifactError(f"{path} is not a sound 64-bit shared library: {reason}") from None


class _BoundedFile:
    """A file with an end to its reads: tables without an end, and long names, stop there."""

    def __init__(self, file: IO[bytes]) -> None:
        self.left, self.size = MOST_READS, os.fstat(file.fileno()).st_size
        self.file, self.seek, self.tell = file, file.seek, file.tell
        if self.size > LARGEST_LIBRARY:
            raise ValueError("not the size of a library")

    def read(self, size: int) -> bytes:
        self.left -= 1
        if self.left < 0 or size > LONGEST_READ:
            raise ValueError("a table without an end")
        return self.file.read(size)


def _read(file: _BoundedFile) -> Library:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(file)
    if (elf.elfclass, elf.little_endian, elf["e_type"]) != (64, True, "ET_DYN"):
        raise ValueError("no 64-bit little-endian shared library's header")
    elf.header["e_shoff"] = 0  # no sections
    segments = list(elf.iter_segments())
    loads = [it for it in segments if it["p_type"] == "PT_LOAD"]
    for it in loads:
        align = max(it["p_align"], 1)
        if align & (align - 1) or (it["p_offset"] - it["p_vaddr"]) % align:
            raise ValueError("a segment that is not aligned as it says")
        if it["p_offset"] + it["p_filesz"] > file.size:
            raise ValueError("a segment outside the file")
    dynamic = next((it for it in segments if it["p_type"] == "PT_DYNAMIC"), None)
    if not loads or dynamic is None:
        raise ValueError("nothing to load")
    tags = [(tag.entry.d_tag, tag) for tag in dynamic.iter_tags()]  # all: any of them may lie
    needed = [tag.needed for name, tag in tags if name == "DT_NEEDED"]
    counts = [tag["d_val"] for name, tag in tags if name == "DT_VERNEEDNUM"]
    versions = _versions(elf, dynamic, counts[0]) if counts else {}
    if not all(name.isascii() and 0 < len(name) < LONGEST_NAME for name in (*needed, *versions)):
        raise ValueError("a name that is none")
    alignment = min(max(it["p_align"], 1) for it in loads)
    return Library(str(elf["e_machine"]), alignment, tuple(needed), versions)


def _versions(elf: Any, dynamic: Any, count: int) -> dict[str, tuple[int, ...]]:
    from elftools.elf.gnuversions import GNUVerNeedSection
    from elftools.elf.sections import StringTableSection

    header = {"sh_flags": 0, "sh_size": 0, "sh_addralign": 0, "sh_info": count}
    names, table = (
        {**header, "sh_offset": dynamic.get_table_offset(name)[1]}
        for name in ("DT_STRTAB", "DT_VERNEED")
    )
    needs = GNUVerNeedSection(table, "", elf, StringTableSection(names, "", elf))
    versions: dict[str, tuple[int, ...]] = {}
    for entry in (entry for _, entries in needs.iter_versions() for entry in entries):
        family, _, number = entry.name.partition("_")
        parts = number.split(".")
        if all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
            versions[family] = max(versions.get(family, ()), tuple(map(int, parts)))
    return versions


class Needs(NamedTuple):
    """What all libraries together ask for."""

    glibc: tuple[int, ...]
    page_size: int
    system: dict[str, str]  # sonames, and Debian's packages of them


def read_all(root: Path) -> dict[str, Library]:
    """Read every ELF file under ``root``, by its name; ArtifactError as `read`."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                magic = file.read(4)
            if magic == b"\x7fELF":
                found[path.name] = read(path)
    return found


def check(found: Mapping[str, Library], board: Board, python: str) -> Needs:
    """Return what libraries ask for; EngineError, one line, for one that would not load."""
    glibc: tuple[int, ...] = (2, 17)
    page_size = 1 << 30
    system: dict[str, str] = {}
    for name, library in found.items():
        if library.machine != AARCH64:
            raise EngineError(f"{name} is not for {MACHINE}")
        page_size = min(page_size, library.alignment)
        if library.alignment < PAGE_SIZE:
            kernel = f"a kernel with pages of {PAGE_SIZE >> 10} KiB, as {board.title}'s"
            alignment = f"{library.alignment >> 10} KiB"
            raise EngineError(f"{name} is aligned to {alignment}: {kernel}, cannot load it")
        for family, most in (("GLIBC", wheels.GLIBC), ("GLIBCXX", wheels.GLIBCXX)):
            version = library.versions.get(family, ())
            if version > most[python]:
                raise EngineError(
                    f"{name} needs {family} {'.'.join(map(str, version))}; "
                    f"{wheels.SUITES[python]} has {'.'.join(map(str, most[python]))}"
                )
        glibc = max(glibc, library.versions.get("GLIBC", ()))
        for soname in sorted(set(library.needed) - set(found) - SYSTEM):
            if soname not in PACKAGES:
                raise EngineError(f"{name} needs {soname}, which nothing brings")
            system[soname] = PACKAGES[soname]
    return Needs(glibc[:2], page_size, system)


def libgomp() -> dict[str, Path] | None:
    """Return ``libgomp.so.1`` for 64-bit Arm and its licence; None where no apt can bring it."""
    # llama.cpp's library needs it, and slim systems lack it. It is that of the oldest release that
    # bundles are made for: newer ones have all that it needs of the C library.
    package, suite, edition = PACKAGES[LIBGOMP], "bookworm", 1
    folder = cache_folder() / f"{package}-{suite}-{edition}"
    found = {name: folder / name for name in (LIBGOMP, LIBGOMP_LICENCE)}
    if all(path.is_file() for path in found.values()):
        return found
    if any(shutil.which(tool) is None for tool in debian.NEEDED):
        return None
    try:
        with (
            replacing_folder(folder, lambda _: True) as new,
            tempfile.TemporaryDirectory(prefix=f".{package}-", dir=folder.parent) as work,
        ):
            root = Path(work, "root")
            for deb in debian.Apt(Path(work, "apt"), "arm64", suite).fetch(package, "gcc-12-base"):
                debian.unpack(deb, root)
            [library] = root.glob(f"**/lib/aarch64-linux-gnu/{LIBGOMP}")
            shutil.copyfile(library, new / LIBGOMP)
            # Debian keeps one text for all packages of this source, in the one they all need.
            shutil.copyfile(root / "usr/share/doc/gcc-12-base/copyright", new / LIBGOMP_LICENCE)
    except (EngineError, OutputError, OSError, ValueError):  # no mirror is near
        return None
    return found
