"""One form for every text: composed Unicode, no mojibake, single spaces, an end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from asterisk.common.digest import DigestSet as Known
from asterisk.common.plugins import require

RUN = 16  # words in a row that no training text shares with an evaluation text
STRIDE = 4
LONGEST = 8_000  # characters; more than 512 tokens of any language hold
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
_WORD = re.compile(r"\w+")


class Cleaner:
    """Mends text by `ftfy`; quotes stay as they were typed, since users type both kinds."""

    def __init__(self) -> None:
        ftfy: Any = require("ftfy", "train")
        self._fix = ftfy.fix_text
        self._config = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)

    def __call__(self, text: str) -> str:
        """Return ``text`` mended, on one line and cut to `LONGEST` characters."""
        text = text[:LONGEST]
        if not text.isascii() or "&" in text:
            text = self._fix(text, self._config)
        return _SPACE.sub(" ", text).strip()


def digest(text: str) -> int:
    """Return 64 bits that tell texts apart."""
    raw = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def words(text: str) -> list[str]:
    """Return the words of ``text``, without case or punctuation."""
    return _WORD.findall(text.casefold())


class Evaluated:
    """What evaluation texts say, so that none of it is trained on.

    A text is refused if its words are an evaluation text's, or if it shares a run of `RUN` words
    with one.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._whole = Known()
        self._runs = Known()
        for text in texts:
            spoken = words(text)
            self._whole.add(digest(" ".join(spoken)))
            # Every window on one side lets the other side be looked up with a stride.
            for window in _windows(spoken, 1):
                self._runs.add(window)

    def __contains__(self, text: str) -> bool:
        spoken = words(text)
        return digest(" ".join(spoken)) in self._whole or any(
            window in self._runs for window in _windows(spoken, STRIDE)
        )


def _windows(spoken: list[str], stride: int) -> Iterator[int]:
    width = RUN - STRIDE + 1
    for start in range(0, len(spoken) - width + 1, stride):
        yield digest(" ".join(spoken[start : start + width]))
