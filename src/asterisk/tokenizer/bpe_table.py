"""The file of a byte-level BPE tokenizer; ``mapped`` says how such a file is laid out.

Inside, a token is a number of its own: 0 to 255 are the bytes (in the vocabulary's order), then
comes what each merge makes, by rank, then tokens that no text leads to, such as special ones::

    pairs               u32  left << 16 | right of each merge, by rank; it makes token 256 + rank
    bases               u32  where the text of token 256 * i begins
    classes             u32  first code point << 2 | class of each run of equal Unicode class
    ids                 u32  the vocabulary's id of each token; empty if each is its own
    prefix, suffix      u32  ids of the special tokens around a text
    facts               u32  bytes of the longest token that merging makes; id + 1 of the padding
                             and of the mask token, 0 if there is none
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

from asterisk.tokenizer.mapped import Kinds, MappedTable

MAGIC = b"astrBPE2"
SECTIONS: Kinds = {
    "pairs": "I",
    "bases": "I",
    "classes": "I",
    "ids": "I",
    "prefix": "I",
    "suffix": "I",
    "facts": "I",
    "offsets": "H",
    "pair_displacements": "H",
    "pair_slots": "H",
    "word_displacements": "H",
    "word_slots": "H",
    "byte_tokens": "B",
    "text": "B",
}
BYTES = 256


class Table(MappedTable):
    """A byte-level BPE's sections."""

    __slots__ = tuple(SECTIONS)

    magic = MAGIC
    kinds = SECTIONS

    pairs: memoryview
    bases: memoryview
    classes: memoryview
    ids: memoryview
    prefix: memoryview
    suffix: memoryview
    facts: memoryview
    offsets: memoryview
    pair_displacements: memoryview
    pair_slots: memoryview
    word_displacements: memoryview
    word_slots: memoryview
    byte_tokens: memoryview
    text: memoryview

    @property
    def tokens(self) -> int:
        """How many tokens there are, those that no text leads to included."""
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Bytes of the longest token that merging makes."""
        return int(self.facts[0])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token in [0, ``tokens``), numbered as inside the table."""
        bases, offsets, after = self.bases, self.offsets, token + 1
        start = bases[token >> 8] + offsets[token]
        return bytes(self.text[start : bases[after >> 8] + offsets[after]])

    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""
        merges, tokens = len(self.pairs), self.tokens
        maps = self.pair_displacements, self.pair_slots, self.word_displacements, self.word_slots
        ids = (*self.prefix, *self.suffix, *(max(fact - 1, 0) for fact in self.facts[1:]))
        return (
            BYTES + merges <= tokens
            and len(self.ids) in (0, tokens)
            and max(self.ids, default=0) < tokens
            and max(ids, default=0) < tokens
            and len(self.facts) == 3
            and len(self.bases) == (tokens >> 8) + 1
            and len(self.byte_tokens) == BYTES
            and all(maps)
            and max(self.pair_slots) < max(merges, 1)
            and max(self.word_slots) < BYTES + merges
            and merges > 0
            and len(self.classes) > 0
            and self.classes[0] >> 2 == 0
        )
