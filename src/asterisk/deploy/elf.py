"""What a shared library asks of the system that loads it, read from its ELF headers alone.

pyelftools reads the tables that the loader reads: those of the program headers. Sections, which may
have been stripped or say something else, are not looked at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.plugins import require

AARCH64, X86_64 = "EM_AARCH64", "EM_X86_64"
LARGEST = 1 << 30
_MOST_READS, _LONGEST_READ, _LONGEST_NAME = 1 << 14, 1 << 12, 512


@dataclass(frozen=True, slots=True)
class Library:
    """``machine`` as ELF names it; ``alignment`` the least of the loaded segments', in bytes.

    ``needed`` are the sonames to be loaded first; ``versions`` has every symbol version asked for,
    by its family: ``{"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29)}``, the highest of each.
    """

    machine: str
    alignment: int
    needed: tuple[str, ...]
    versions: dict[str, tuple[int, ...]]


def read(path: Path) -> Library:
    """Read the library ``path``; ArtifactError, one line, if it is none or is malformed."""
    require("elftools", "deploy")
    try:
        with path.open("rb") as file:
            return _read(_Bounded(file))
    except Exception as failure:  # of a dozen kinds, for files that lie
        reason = one_line(failure)[:200]
        raise ArtifactError(f"{path} is not a sound 64-bit shared library: {reason}") from None


def is_library(path: Path) -> bool:
    """Tell whether a file begins like an ELF file."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


class _Bounded:
    """A file that may be read from so often: tables without an end, and names, end there."""

    def __init__(self, file: IO[bytes]) -> None:
        self.left, self.size = _MOST_READS, os.fstat(file.fileno()).st_size
        self.file, self.seek, self.tell = file, file.seek, file.tell
        if self.size > LARGEST:
            raise ValueError("not the size of a library")

    def read(self, size: int) -> bytes:
        self.left -= 1
        if self.left < 0 or size > _LONGEST_READ:
            raise ValueError("a table without an end")
        return self.file.read(size)


def _read(file: _Bounded) -> Library:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection
    from elftools.elf.sections import StringTableSection

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
    tags = [(tag.entry.d_tag, tag) for tag in dynamic.iter_tags()]
    needed = [tag.needed for name, tag in tags if name == "DT_NEEDED"]
    versions: dict[str, tuple[int, ...]] = {}
    counts = [tag["d_val"] for name, tag in tags if name == "DT_VERNEEDNUM"]
    if counts:
        none = {"sh_flags": 0, "sh_size": 0, "sh_addralign": 0}
        names, table = (
            {**none, "sh_offset": dynamic.get_table_offset(name)[1], "sh_info": counts[0]}
            for name in ("DT_STRTAB", "DT_VERNEED")
        )
        strings = StringTableSection(names, "", elf)
        for _, entries in GNUVerNeedSection(table, "", elf, strings).iter_versions():
            for entry in entries:
                family, _, number = entry.name.partition("_")
                parts = number.split(".")
                if all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
                    versions[family] = max(versions.get(family, ()), tuple(map(int, parts)))
    if not all(name.isascii() and 0 < len(name) < _LONGEST_NAME for name in (*needed, *versions)):
        raise ValueError("a name that is none")
    least = min(max(it["p_align"], 1) for it in loads)
    return Library(str(elf["e_machine"]), least, tuple(needed), versions)
