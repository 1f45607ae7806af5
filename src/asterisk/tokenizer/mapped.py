"""Tokenizer files: fixed tables, little endian, read in place through a memory mapping.

A header (magic, CRC-32 of all that follows it, the length of each section in items) and then the
sections, widest items first so that every one is aligned. Which sections there are is the format's
own: see ``bpe_table`` and ``wordpiece_table``.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar, Literal

from asterisk.common.errors import ArtifactError

MAGIC = 8  # bytes

Kinds = Mapping[str, Literal["I", "H", "B"]]
"""Section names and the `struct` letters of their items, in the order of the file."""


class MappedTable(ABC):
    """The sections of one file, as read-only views of unsigned integers, one attribute each.

    A kind of table gives ``magic`` and ``kinds``, and says in `consistent` what has to hold.
    """

    # Not a dataclass: importing that module takes longer than opening the table.
    __slots__ = ("data", "path")

    magic: ClassVar[bytes]
    kinds: ClassVar[Kinds]

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Check ``data``, so that no later read can leave a section.

        Raises ArtifactError if it is not such a table, or is truncated or altered.
        """
        name = str(path or "the tokenizer")
        self.data = data
        self.path = path
        for section, view in unpack(data, self.magic, self.kinds, name).items():
            setattr(self, section, view)
        if not self.consistent():
            raise ArtifactError(f"{name}: tokenizer table contradicts itself")

    @abstractmethod
    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""


def pack(magic: bytes, kinds: Kinds, sections: Mapping[str, bytes]) -> bytes:
    """Return the file that holds ``sections`` (little-endian bytes under each section's name)."""
    lengths = [len(sections[name]) // struct.calcsize(kind) for name, kind in kinds.items()]
    body = struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(sections[n] for n in kinds)
    return magic + struct.pack("<I", zlib.crc32(body)) + body


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map the file at ``path`` for reading; ArtifactError if that fails."""
    try:
        with Path(path).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ArtifactError(f"{path}: cannot be mapped: {error}") from error


def unpack(data: bytes | mmap.mmap, magic: bytes, kinds: Kinds, name: str) -> dict[str, memoryview]:
    """Return the sections of ``data`` as views of unsigned integers.

    Raises ArtifactError, with ``name`` for the file, if it is not such a file, or is truncated or
    altered, and on a big-endian machine.
    """
    if sys.byteorder != "little":
        raise ArtifactError(f"{name}: tokenizer tables are read in place on little-endian machines")
    header = struct.Struct(f"<{MAGIC}sI{len(kinds)}I")
    view = memoryview(data)
    if len(view) < header.size or view[:MAGIC] != magic:
        raise ArtifactError(f"{name}: is not a tokenizer table")
    _, checksum, *lengths = header.unpack_from(view)
    if zlib.crc32(view[MAGIC + 4 :]) != checksum:
        raise ArtifactError(f"{name}: tokenizer table is truncated or altered")
    sizes = (n * struct.calcsize(kind) for n, kind in zip(lengths, kinds.values(), strict=True))
    ends = list(accumulate(sizes, initial=header.size))
    if ends[-1] != len(view):
        raise ArtifactError(f"{name}: tokenizer table is not as long as its header says")
    return {
        section: view[start:end].cast(kind)
        for (section, kind), (start, end) in zip(kinds.items(), pairwise(ends), strict=True)
    }
