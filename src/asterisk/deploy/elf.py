"""What a shared library asks of the system that loads it, read from its ELF headers alone.

Follows the System V ABI's "Program Header" and "Dynamic Section" and the GNU extensions for symbol
versions (``.gnu.version_r``), for 64-bit little-endian files. Nothing of the file is trusted: every
offset is checked and every count bounded. The tables are found through the program headers, as the
loader finds them; sections may have been stripped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asterisk.errors import ArtifactError

AARCH64, X86_64 = 183, 62
LARGEST = 1 << 30
_MOST_SEGMENTS, _MOST_ENTRIES, _LONGEST_NAME = 128, 1 << 12, 512
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _STRINGS_SIZE, _VERNEED, _VERNEEDNUM = 1, 5, 10, 0x6FFFFFFE, 0x6FFFFFFF
_MAGIC = b"\x7fELF\x02\x01\x01"


@dataclass(frozen=True, slots=True)
class Library:
    """``machine`` as in the header; ``alignment`` the least of the loaded segments', in bytes.

    ``needed`` are the sonames to be loaded first; ``versions`` has every symbol version asked for,
    by its family: ``{"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29)}``, the highest of each.
    """

    machine: int
    alignment: int
    needed: tuple[str, ...]
    versions: dict[str, tuple[int, ...]]


def read(path: Path) -> Library:
    """Read the library ``path``; ArtifactError, one line, if it is none or is malformed."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not 64 <= size <= LARGEST:
                raise _Malformed("not the size of a library")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(data)
    except (OSError, struct.error, _Malformed) as failure:
        raise ArtifactError(f"{path} is not a sound 64-bit shared library: {failure}") from None


def is_library(path: Path) -> bool:
    """Tell whether a file begins like an ELF file."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC[:4]


class _Malformed(Exception):
    pass


def _read(data: mmap.mmap) -> Library:
    if data[:7] != _MAGIC:
        raise _Malformed("no 64-bit little-endian ELF header")
    kind, machine = struct.unpack_from("<HH", data, 16)
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    if kind != 3 or entry_size != 56 or not 1 <= count <= _MOST_SEGMENTS:
        raise _Malformed("no shared library's header")
    loads, dynamic = [], None
    for index in range(count):
        _inside(data, table + 56 * index, 56)
        kind, _, offset, address, _, length, _, align = struct.unpack_from(
            "<IIQQQQQQ", data, table + 56 * index
        )
        if kind == _LOAD:
            _inside(data, offset, length)
            if align & (align - 1):
                raise _Malformed("an alignment that is no power of two")
            if align > 1 and (offset - address) % align:
                raise _Malformed("a segment that is not aligned as it says")
            loads.append((address, offset, length, max(align, 1)))
        elif kind == _DYNAMIC:
            dynamic = offset, length
    if not loads or dynamic is None:
        raise _Malformed("nothing to load")
    entries = list(_dynamic(data, *dynamic))
    known = dict(entries)
    needed: tuple[str, ...] = ()
    versions: dict[str, tuple[int, ...]] = {}
    if _STRINGS in known:
        start = _offset(loads, known[_STRINGS])
        names = _Names(data, start, known.get(_STRINGS_SIZE, 0))
        needed = tuple(names.at(value) for tag, value in entries if tag == _NEEDED)
        if _VERNEED in known:
            at = _offset(loads, known[_VERNEED])
            for name in _versions(data, at, known.get(_VERNEEDNUM, 0), names):
                family, _, number = name.partition("_")
                parts = number.split(".")
                if all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
                    found = tuple(map(int, parts))
                    versions[family] = max(versions.get(family, ()), found)
    return Library(machine, min(align for *_, align in loads), needed, versions)


class _Names:
    """The dynamic string table."""

    def __init__(self, data: mmap.mmap, start: int, size: int) -> None:
        _inside(data, start, size)
        self._data, self._start, self._end = data, start, start + size

    def at(self, index: int) -> str:
        at = self._start + index
        end = self._data.find(b"\0", at, min(self._end, at + _LONGEST_NAME))
        if not self._start <= at < end:
            raise _Malformed("a name outside its table")
        name = self._data[at:end]
        if not name.isascii():
            raise _Malformed("a name that is not ASCII")
        return name.decode("ascii")


def _inside(data: mmap.mmap, offset: int, length: int) -> None:
    if offset + length > len(data):
        raise _Malformed("a table outside the file")


def _dynamic(data: mmap.mmap, offset: int, length: int) -> Iterator[tuple[int, int]]:
    _inside(data, offset, length)
    for index in range(min(length // 16, _MOST_ENTRIES)):
        tag, value = struct.unpack_from("<QQ", data, offset + 16 * index)
        if tag == 0:
            return
        yield tag, value


def _offset(loads: list[tuple[int, int, int, int]], address: int) -> int:
    for start, offset, length, _ in loads:
        if start <= address < start + length:
            return offset + address - start
    raise _Malformed("an address outside every segment")


def _versions(data: mmap.mmap, at: int, count: int, names: _Names) -> Iterator[str]:
    """Yield the names of all needed versions: a list of files, each with a list of versions."""
    left = _MOST_ENTRIES
    for _ in range(min(count, _MOST_ENTRIES)):
        _inside(data, at, 16)
        _, inner, _, first, following = struct.unpack_from("<HHIII", data, at)
        entry = at + first
        for _ in range(inner):
            left -= 1
            _inside(data, entry, 16)
            if left < 0:
                raise _Malformed("too many versions")
            _, _, _, name, step = struct.unpack_from("<IHHII", data, entry)
            yield names.at(name)
            if step == 0:
                break
            entry += step
        if following == 0:
            return
        at += following
