"""GPT-2's byte-level BPE over one mapped table, with ``[PAD]`` and ``[MASK]`` after its tokens.

The ids are those of Hugging Face's GPT-2 tokenizer with ``split_special_tokens=True``: no special
token is ever read out of a text, and none is added. Every lone surrogate is read as U+FFFD.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from asterisk.errors import InputError, UsageError
from asterisk.tokenizer.merge import Merger
from asterisk.tokenizer.prefix import Prefix
from asterisk.tokenizer.split import Splitter
from asterisk.tokenizer.table import Table, open_table
from asterisk.tokenizer.words import Words, utf8

BUILTIN = Path(__file__).with_name("gpt2.bin")
"""The table that comes with this package."""


class Tokenizer:
    """Text to token ids and back. Safe to use from several threads; pickles as its path."""

    __slots__ = ("_prefix", "_split", "_table", "_words", "mask_id", "pad_id", "vocab_size")

    def __init__(self, table: Table) -> None:
        merge = Merger(table)
        self._table = table
        self._split = Splitter(table.classes)
        self._words = Words(table, merge)
        self._prefix = Prefix(table, merge)
        self.vocab_size = table.tokens
        self.pad_id = table.tokens - 2
        self.mask_id = table.tokens - 1

    @classmethod
    def open(cls, path: str | os.PathLike[str] = BUILTIN) -> Tokenizer:
        """Map the table at ``path``, about 1 MB, and check all of it.

        Raises ArtifactError if it cannot be read or is not a sound table.
        """
        return cls(open_table(path))

    def __reduce__(self) -> tuple[object, ...]:
        return Tokenizer.open, (self._table.path,)

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Return the ids of ``text``, or the first ``limit`` of them.

        With ``limit``, time and memory are bounded by it and not by the length of ``text``. Raises
        UsageError if ``limit`` is negative.
        """
        if limit is None:
            return self._all(text)
        if limit < 0:
            raise UsageError(f"the limit must be 0 or more, not {limit}")
        size = 6 * limit + 64  # enough characters for nearly every text
        while size < len(text):
            tokens = self._start(text[:size], limit)
            if len(tokens) >= limit:
                return tokens[:limit]
            size *= 2
        return self._all(text)[:limit]

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield each word of ``text`` with its ids; joined, the words are ``text``."""
        for word in self._split(text):
            yield word, self._words[word]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, with U+FFFD for bytes that are not UTF-8.

        Raises InputError if an id is not in [0, ``vocab_size``).
        """
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token; a special token's are those of its name.

        Raises InputError if it is not in [0, ``vocab_size``).
        """
        if not 0 <= token < self.vocab_size:
            raise InputError(f"token {token} is not in 0..{self.vocab_size - 1}")
        return self._table.token_bytes(token)

    def merges(self) -> Iterator[tuple[int, int]]:
        """Yield the two tokens of each merge, by rank."""
        for pair in self._table.pairs:
            yield pair >> 16, pair & 0xFFFF

    def _all(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._words.__getitem__, self._split(text))))

    def _start(self, text: str, limit: int) -> list[int]:
        """Return ids that open every text beginning with ``text``; too few if ``limit`` is far."""
        *words, last = self._split(text)
        if words and words[-1] == "'":  # perhaps of a contraction that ends beyond
            words.pop()
            last = ""
        tokens = list(chain.from_iterable(map(self._words.__getitem__, words)))
        if len(tokens) < limit:
            # The last character may be another word's, as the last of several spaces is.
            tokens += self._prefix.certain(utf8(last[:-1]), limit - len(tokens))
        return tokens
