"""Byte-level BPE over one mapped table: GPT-2's, RoBERTa's and any other of that kind.

The ids are those of Hugging Face's tokenizers with ``split_special_tokens=True``: no special token
is ever read out of a text, and none is added.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from asterisk.common.errors import InputError
from asterisk.tokenizer.bpe_table import Table
from asterisk.tokenizer.mapped import map_file
from asterisk.tokenizer.merge import Merger
from asterisk.tokenizer.prefix import Prefix
from asterisk.tokenizer.split import Splitter
from asterisk.tokenizer.tokenizer import Tokenizer, joined_surrogates, utf8
from asterisk.tokenizer.words import Words

BUILTIN = Path(__file__).with_name("gpt2.bin")
"""The table that comes with this package: GPT-2's, with ``[PAD]`` and ``[MASK]`` after its own."""


class ByteLevelBPE(Tokenizer):
    """Text to token ids and back. Pickles as its path, or whole where it has none."""

    __slots__ = ("_numbers", "_prefix", "_split", "_table", "_words", "mask_id")

    mask_id: int | None

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read the table in ``data``; ArtifactError if it is not a sound one."""
        self._table = table = Table(data, path)
        merge = Merger(table)
        self._split = Splitter(table.classes)
        self._words = Words(table, merge)
        self._prefix = Prefix(table, merge)
        self._numbers: array[int] | None = None
        self.vocab_size = table.tokens
        self.prefix = tuple(table.prefix)
        self.suffix = tuple(table.suffix)
        _, pad, mask = table.facts
        self.pad_id = pad - 1 if pad else None
        self.mask_id = mask - 1 if mask else None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ByteLevelBPE:
        """Map the table at ``path``, about 1 MB, and check all of it.

        Raises ArtifactError if it cannot be read or is not a sound table.
        """
        return cls(map_file(path), Path(path))

    def __reduce__(self) -> tuple[object, ...]:
        if self._table.path is None:
            return ByteLevelBPE, (bytes(self._table.data),)
        return ByteLevelBPE.open, (self._table.path,)

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
        ids = self._table.ids
        if not ids:
            return self._table.token_bytes(token)
        if self._numbers is None:  # of each id; encoding has no need of them
            numbers = array("I", bytes(4 * len(ids)))
            for number, id_ in enumerate(ids):
                numbers[id_] = number
            self._numbers = numbers
        return self._table.token_bytes(self._numbers[token])

    def merges(self) -> Iterator[tuple[int, int]]:
        """Yield the two tokens of each merge, by rank."""
        ids = self._table.ids or range(self.vocab_size)
        for pair in self._table.pairs:
            yield ids[pair >> 16], ids[pair & 0xFFFF]

    def _all(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._words.__getitem__, self._split(text))))

    def _first(self, text: str, limit: int) -> list[int]:
        size = 6 * limit + 64  # enough characters for nearly every text
        while size < len(text):
            if "\ud800" <= text[size - 1] <= "\udbff":
                size += 1  # what follows may be the other half of a surrogate pair
            tokens = self._start(text[:size], limit)
            if len(tokens) >= limit:
                return tokens[:limit]
            size *= 2
        return self._all(text)[:limit]

    def _start(self, text: str, limit: int) -> list[int]:
        """Return ids that open every text beginning with ``text``; too few if ``limit`` is far."""
        *words, last = self._split(text)
        if words and words[-1] == "'":  # perhaps of a contraction that ends beyond
            words.pop()
            last = ""
        tokens = list(chain.from_iterable(map(self._words.__getitem__, words)))
        if len(tokens) < limit:
            # The last character may be another word's, as the last of several spaces is.
            known = utf8(joined_surrogates(last)[:-1])
            certain = self._prefix.certain(known, limit - len(tokens))
            tokens += map(self._table.ids.__getitem__, certain) if self._table.ids else certain
        return tokens


def gpt2() -> ByteLevelBPE:
    """Open the built-in table: GPT-2's vocabulary and ``[PAD]`` and ``[MASK]`` after it."""
    return ByteLevelBPE.open(BUILTIN)
