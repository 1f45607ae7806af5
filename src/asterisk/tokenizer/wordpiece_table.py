"""The file of a WordPiece tokenizer; ``mapped`` says how such a file is laid out.

What the normaliser and the pre-tokeniser make of each code point is composed into one string, in
which spaces end words; ``unicode.json`` is where it comes from, and no other Unicode data is read::

    runs                u32  first code point << 3 | kind of each run of code points of one kind
    from_points         u32  the code points of kind REPLACED, ascending
    to_ends             u32  where the replacement of each begins in ``to``, in bytes; one more
    combining           u32  code point << 8 | combining class of each character that has one and
                             is not removed, ascending; empty unless accents are stripped
    buckets             u32  where the tokens of each CRC-32 >> shift begin; one more at the end
    ids                 u32  the vocabulary's id of each token, by CRC-32
    offsets             u32  where the text of each token begins, by CRC-32; one more at the end
    prefix, suffix      u32  ids of the special tokens around a text
    facts               u32  vocabulary size; id of [UNK]; most characters of a word; characters of
                             the longest token; id + 1 of the padding token, 0 if there is none
    marks               u16  CRC-32 & 0xffff of each token
    to                  u8   the replacements in UTF-8, with lone surrogates
    continuing          u8   what a token within a word begins with, ``##``
    text                u8   the tokens in UTF-8, one after the other
"""

from __future__ import annotations

import mmap
from pathlib import Path

from asterisk.tokenizer.mapped import Kinds, MappedTable

MAGIC = b"astrWPC1"
SECTIONS: Kinds = {
    "runs": "I",
    "from_points": "I",
    "to_ends": "I",
    "combining": "I",
    "buckets": "I",
    "ids": "I",
    "offsets": "I",
    "prefix": "I",
    "suffix": "I",
    "facts": "I",
    "marks": "H",
    "to": "B",
    "continuing": "B",
    "text": "B",
}
KEPT, SPACE, REMOVED, REMOVED_STARTER, APART, HANGUL, REPLACED = range(7)
STARTER = "\ud800"
"""Stands in the composed string for a removed character of no combining class.

Characters with a class do not change places across it. It never comes from a text, because
surrogates are read before.
"""


class Table(MappedTable):
    """A WordPiece's sections."""

    __slots__ = ("text_start", *SECTIONS)

    text_start: int

    magic = MAGIC
    kinds = SECTIONS

    runs: memoryview
    from_points: memoryview
    to_ends: memoryview
    combining: memoryview
    buckets: memoryview
    ids: memoryview
    offsets: memoryview
    prefix: memoryview
    suffix: memoryview
    facts: memoryview
    marks: memoryview
    to: memoryview
    continuing: memoryview
    text: memoryview

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        super().__init__(data, path)
        self.text_start = len(data) - len(self.text)

    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""
        tokens, buckets = len(self.ids), len(self.buckets) - 1
        if len(self.facts) != 5 or not tokens:
            return False
        size, unknown, _, _, pad = self.facts
        return (
            tokens <= size
            and max(self.ids) < size
            and max(unknown, pad - 1, *self.prefix, *self.suffix) < size
            and buckets > 0
            and buckets & (buckets - 1) == 0
            and buckets <= 1 << 32
            and max(self.buckets) == tokens
            and len(self.marks) == tokens
            and len(self.offsets) == tokens + 1
            and max(self.offsets) == len(self.text)
            and len(self.to_ends) == len(self.from_points) + 1
            and max(self.to_ends) == len(self.to)
            and len(self.runs) > 0
            and self.runs[0] >> 3 == 0
            and max(self.from_points, default=0) <= 0x10FFFF
            and max(self.combining, default=0) >> 8 <= 0x10FFFF
        )
