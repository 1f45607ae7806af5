r"""Text into words, cut where GPT-2's pattern cuts it.

The pattern is ``'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+``. The
standard library's ``re`` knows neither ``\p{L}`` nor one fixed version of Unicode, so the pattern
here is in ASCII and every other code point is first replaced by an ASCII character of its class,
looked up in the table. Lengths do not change, so the cuts are those of the text itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate, pairwise

from asterisk.tokenizer.tokenizer import SURROGATES, joined_surrogates

LETTER, NUMBER, SPACE, OTHER = range(4)

# The pattern treats none of the four apart from its class: contractions are lower-case letters, and
# only a literal space may lead a word.
_STAND_INS = {LETTER: "A", NUMBER: "0", SPACE: "\t", OTHER: "!"}
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
# Letters come first because they are commonest; only contractions and symbols overlap.
_WORD = re.compile(
    r" ?[A-Za-z]+|'(?:[stmd]|re|ve|ll)| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)
_KEPT = 2048  # code points, about 100 bytes each


class Splitter:
    """Cuts text into words; ``classes`` is the table's section of that name."""

    __slots__ = ("_stand_ins",)

    def __init__(self, classes: memoryview) -> None:
        self._stand_ins = _StandIns(classes)

    def __call__(self, text: str) -> list[str]:
        """Return the words of ``text``; joined, they are ``text`` again."""
        if text.isascii():
            return _WORD.findall(text)
        ascii_text = _FOREIGN.sub(lambda run: run[0].translate(self._stand_ins), text)
        if not ascii_text.isascii():  # surrogates are left
            ascii_text = SURROGATES.sub(self._surrogate, ascii_text)
        ends = accumulate(map(len, _WORD.findall(ascii_text)), initial=0)
        return [text[start:end] for start, end in pairwise(ends)]

    def _surrogate(self, match: re.Match[str]) -> str:
        # Two letters or two symbols are cut nowhere between them, so a pair may stand for one.
        return self._stand_ins[ord(joined_surrogates(match[0]))] * len(match[0])


class _StandIns(dict[int, str]):
    """Code point to the ASCII character that stands in for it, found when first asked for."""

    __slots__ = ("_classes",)

    def __init__(self, classes: memoryview) -> None:
        self._classes = classes

    def __missing__(self, point: int) -> str:
        if 0xD800 <= point < 0xE000:
            raise KeyError(point)  # so that ``translate`` leaves it
        run = self._classes[bisect_right(self._classes, point << 2 | 3) - 1]
        if len(self) >= _KEPT:
            self.clear()
        self[point] = stand_in = _STAND_INS[run & 3]
        return stand_in
