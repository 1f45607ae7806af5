"""The texts that are timed: real ones, cut at a word's end to an exact number of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asterisk.bench.plan import BUCKETS, LONG
from asterisk.common import texts
from asterisk.tokenizer import Tokenizer

PROSE = ("news", "note", "question", "definition", "passage")
EACH = 128  # texts a bucket, at most
MIXED = 512  # enough that starting threads costs nothing
LONGEST_MIXED = 128  # tokens


@dataclass(frozen=True, slots=True)
class Chosen:
    """``buckets`` by number of tokens, a ``mixed`` list as the texts come, one ``long`` text."""

    buckets: dict[int, list[str]]
    mixed: list[str]
    long: str


def choose(tokenizer: Tokenizer, tokens: Sequence[int] = BUCKETS) -> Chosen:
    """Choose among the texts that ship, in buckets of so many ``tokens``; the same every time.

    Special tokens count: a text of 20 tokens is computed with 20.
    """
    prose = [text.text for text in texts.load() if text.kind in PROSE]
    buckets = {count: cut_all(tokenizer, prose, count, EACH) for count in tokens}
    mixed = [text for text in prose if size(tokenizer, text) <= LONGEST_MIXED][:MIXED]
    return Chosen(buckets, mixed, cut_all(tokenizer, prose, LONG, 1)[0])


def cut_all(tokenizer: Tokenizer, some: Iterable[str], tokens: int, most: int) -> list[str]:
    """Return up to ``most`` beginnings of ``some`` that have exactly ``tokens`` tokens."""
    found: list[str] = []
    for text in some:
        start = cut(tokenizer, text, tokens)
        if start is not None and start not in found:
            found.append(start)
            if len(found) == most:
                break
    return found


def cut(tokenizer: Tokenizer, text: str, tokens: int) -> str | None:
    """Return the beginning of ``text`` of exactly ``tokens`` tokens, if a word ends there."""
    count, end = specials(tokenizer), 0
    for word, ids in tokenizer.words(text):
        count, end = count + len(ids), end + len(word)
        if count >= tokens:
            break
    start = text[:end]
    return start if count == tokens and size(tokenizer, start) == tokens else None


def size(tokenizer: Tokenizer, text: str) -> int:
    """Return with how many tokens ``text`` is computed, special ones included."""
    return len(tokenizer.encode(text)) + specials(tokenizer)


def specials(tokenizer: Tokenizer) -> int:
    """Return how many special tokens stand around every text."""
    return len(tokenizer.prefix) + len(tokenizer.suffix)
