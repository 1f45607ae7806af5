"""What every tokenizer here can do, and how all of them read surrogates in a Python string."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from asterisk.common.errors import UsageError

SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")
"""A surrogate pair, which is one character, or a lone surrogate."""


class Tokenizer(ABC):
    """Text to token ids. Safe to use from several threads."""

    __slots__ = ("pad_id", "prefix", "suffix", "vocab_size")

    vocab_size: int
    """Every id is below it."""
    pad_id: int | None
    prefix: tuple[int, ...]
    """The special tokens that the model wants before a text, such as [CLS] or <s>."""
    suffix: tuple[int, ...]
    """The special tokens that the model wants after a text."""

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Return the ids of ``text`` without special tokens, or the first ``limit`` of them.

        A special token's name in a text is plain text. A surrogate pair is its character, a lone
        surrogate is U+FFFD. With ``limit``, time and memory are bounded by it and not by the
        length of ``text``. Raises UsageError if ``limit`` is negative.
        """
        if limit is None:
            return self._all(text)
        if limit < 0:
            raise UsageError(f"the limit must be 0 or more, not {limit}")
        return self._first(text, limit)

    @abstractmethod
    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``."""

    def with_special_tokens(self, ids: Sequence[int]) -> list[int]:
        """Return ``ids`` between the special tokens that the model wants around a text."""
        return [*self.prefix, *ids, *self.suffix]

    @abstractmethod
    def _all(self, text: str) -> list[int]:
        """Return the ids of ``text``."""

    @abstractmethod
    def _first(self, text: str, limit: int) -> list[int]:
        """Return the first ``limit`` ids of ``text``, or all of them if there are fewer."""


def joined_surrogates(text: str) -> str:
    """Return ``text`` with every surrogate pair as its character, lone surrogates as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def utf8(text: str) -> bytes:
    """Return ``text`` in UTF-8, surrogates read as ``joined_surrogates`` does."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return joined_surrogates(text).encode()
