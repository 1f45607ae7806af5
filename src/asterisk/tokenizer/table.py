"""The tokenizer's one file: fixed tables, little endian, read in place through a memory mapping.

A header (magic, CRC-32 of all that follows it, the length of each section in items) and then the
sections, widest items first so that every one is aligned::

    pairs               u32  left << 16 | right of each merge, by rank; it makes token 256 + rank
    bases               u32  where the text of token 256 * i begins
    classes             u32  first code point << 2 | class of each run of equal Unicode class
    offsets             u16  where token i's text begins, past bases[i >> 8]; one more at the end
    pair_displacements  u16 ⎫ pair of tokens -> rank
    pair_slots          u16 ⎭
    word_displacements  u16 ⎫ CRC-32 of a word -> the token that is the whole word
    word_slots          u16 ⎭
    byte_tokens         u8   the token of each byte
    text                u8   the bytes of all tokens, one after the other

The two maps are perfect hashes: ``slots[(key + displacements[key % B]) % S]`` is the only place
where a key can be, so a look-up is one step and whoever looks compares the key itself.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

from asterisk.errors import ArtifactError

_MAGIC = b"asterBPE"
_SECTIONS: dict[str, Literal["I", "H", "B"]] = {
    "pairs": "I",
    "bases": "I",
    "classes": "I",
    "offsets": "H",
    "pair_displacements": "H",
    "pair_slots": "H",
    "word_displacements": "H",
    "word_slots": "H",
    "byte_tokens": "B",
    "text": "B",
}
_HEADER = struct.Struct(f"<8sI{len(_SECTIONS)}I")
_SUMMED = len(_MAGIC) + 4  # the checksum covers everything after itself
_BYTES = 256
LONGEST = 128  # bytes in GPT-2's longest token
SPECIALS = (b"<|endoftext|>", b"[PAD]", b"[MASK]")  # the last tokens, in this order


class Table:
    """The sections of one mapped file, as read-only views of unsigned integers."""

    # Not a dataclass: importing that module takes longer than opening the table.
    __slots__ = ("path", *_SECTIONS)

    path: Path
    pairs: memoryview
    bases: memoryview
    classes: memoryview
    offsets: memoryview
    pair_displacements: memoryview
    pair_slots: memoryview
    word_displacements: memoryview
    word_slots: memoryview
    byte_tokens: memoryview
    text: memoryview

    def __init__(self, path: Path, views: Mapping[str, memoryview]) -> None:
        self.path = path
        for name, view in views.items():
            setattr(self, name, view)

    @property
    def tokens(self) -> int:
        """How many tokens there are, the special ones included."""
        return len(self.offsets) - 1

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token in [0, ``tokens``)."""
        bases, offsets, after = self.bases, self.offsets, token + 1
        start = bases[token >> 8] + offsets[token]
        return bytes(self.text[start : bases[after >> 8] + offsets[after]])


def pack(sections: Mapping[str, bytes]) -> bytes:
    """Return the file that holds ``sections`` (little-endian bytes under each section's name)."""
    lengths = [len(sections[name]) // struct.calcsize(kind) for name, kind in _SECTIONS.items()]
    body = struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(sections[n] for n in _SECTIONS)
    return _MAGIC + struct.pack("<I", zlib.crc32(body)) + body


def open_table(path: str | os.PathLike[str]) -> Table:
    """Map the file at ``path`` and check it, so that no later read can leave a section.

    Raises ArtifactError if the file cannot be read, is not such a table, or is truncated or
    altered, and on a big-endian machine.
    """
    path = Path(path)
    if sys.byteorder != "little":
        raise ArtifactError(f"{path}: tokenizer tables are read in place on little-endian machines")
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ArtifactError(f"{path}: cannot be mapped: {error}") from error
    if len(mapped) < _HEADER.size or mapped[: len(_MAGIC)] != _MAGIC:
        raise ArtifactError(f"{path}: is not a tokenizer table")
    _, checksum, *lengths = _HEADER.unpack_from(mapped)
    if zlib.crc32(mapped[_SUMMED:]) != checksum:
        raise ArtifactError(f"{path}: tokenizer table is truncated or altered")
    table = Table(path, _views(mapped, lengths, path))
    if not _consistent(table):
        raise ArtifactError(f"{path}: tokenizer table contradicts itself")
    return table


def _views(mapped: memoryview, lengths: list[int], path: Path) -> dict[str, memoryview]:
    sizes = (n * struct.calcsize(kind) for n, kind in zip(lengths, _SECTIONS.values(), strict=True))
    ends = list(accumulate(sizes, initial=_HEADER.size))
    if ends[-1] != len(mapped):
        raise ArtifactError(f"{path}: tokenizer table is not as long as its header says")
    return {
        name: mapped[start:end].cast(kind)
        for (name, kind), (start, end) in zip(_SECTIONS.items(), pairwise(ends), strict=True)
    }


def _consistent(table: Table) -> bool:
    """Whether every index that the file holds stays inside the section it points into."""
    merges, tokens = len(table.pairs), table.tokens
    maps = table.pair_displacements, table.pair_slots, table.word_displacements, table.word_slots
    return (
        tokens == _BYTES + merges + len(SPECIALS)
        and len(table.bases) == (tokens >> 8) + 1
        and len(table.byte_tokens) == _BYTES
        and all(maps)
        and max(table.pair_slots) < merges
        and max(table.word_slots) < tokens
        and len(table.classes) > 0
        and table.classes[0] >> 2 == 0
    )
