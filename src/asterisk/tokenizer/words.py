"""The tokens of a word: remembered, else a whole token of the table, else merged."""

from __future__ import annotations

import zlib

from asterisk.tokenizer.bpe_table import Table
from asterisk.tokenizer.merge import Merger
from asterisk.tokenizer.tokenizer import utf8

_KEPT = 8192  # words, about 200 bytes each
_KEPT_LENGTH = 24  # longer words seldom come back


class Words(dict[str, tuple[int, ...]]):
    """Word to tokens, a bounded memory that fills itself; ``words[word]`` never fails.

    Safe in several threads: an entry never changes, and losing one costs only time.
    """

    __slots__ = ("_displacements", "_ids", "_merge", "_slots", "_table")

    def __init__(self, table: Table, merge: Merger) -> None:
        self._table = table
        self._merge = merge
        self._ids = table.ids
        self._displacements = table.word_displacements
        self._slots = table.word_slots

    def __missing__(self, word: str) -> tuple[int, ...]:
        data = utf8(word)
        key = zlib.crc32(data)
        displacements, slots = self._displacements, self._slots
        token = slots[(key + displacements[key % len(displacements)]) % len(slots)]
        whole = self._table.token_bytes(token) == data
        tokens = (token,) if whole else tuple(self._merge(data))
        if self._ids:
            tokens = tuple(map(self._ids.__getitem__, tokens))
        if len(word) <= _KEPT_LENGTH:
            if len(self) >= _KEPT:
                self.clear()
            self[word] = tokens
        return tokens
