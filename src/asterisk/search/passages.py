"""Long texts cut into overlapping passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from asterisk.errors import UsageError
from asterisk.tokenizer import Tokenizer

# Positions past 256 are untrained in the shipped model: a passage with its title stays below them.
LONGEST, OVERLAP, LONGEST_TITLE = 128, 32, 48  # tokens
LEAST = 16

# After a full stop and its quotes, before white space; or at an empty line. East Asian full stops
# need no space. What is cut there in vain (after "Dr.") costs nothing: pieces are joined again.
_ENDS = re.compile(r"\n[ \t\r]*\n\s*|[.!?…][\"'”’»)\]]*\s+|[。！？]+\s*|\n\s*")


@dataclass(frozen=True, slots=True)
class Passage:
    """``text[start:end]`` of a document, in characters."""

    start: int
    end: int


def passages(
    text: str, tokenizer: Tokenizer, *, longest: int = LONGEST, overlap: int = OVERLAP
) -> list[Passage]:
    """Cut ``text`` between sentences into passages of at most ``longest`` tokens.

    Neighbours share at most ``overlap`` tokens, whole sentences where that is possible. Together
    the passages cover everything but white space; a blank text has none. Offsets are exact.
    UsageError unless 0 <= overlap < longest and longest is at least 16.
    """
    if not 0 <= overlap < longest or longest < LEAST:
        raise UsageError(f"passages of {longest} tokens cannot overlap by {overlap}")
    whole = _stripped(text, 0, len(text))
    if whole is None:
        return []
    # A token is a byte or more: what is short in bytes needs no counting.
    if len(text.encode("utf-8", "replace")) <= longest or _holds(text, whole, tokenizer, longest):
        return [whole]
    pieces = list(_pieces(text, tokenizer, longest))
    found: list[Passage] = []
    first = 0
    while first < len(pieces):
        last, tokens = first, 0
        while last < len(pieces) and tokens + pieces[last][2] <= longest:
            tokens += pieces[last][2]
            last += 1
        passage = _stripped(text, pieces[first][0], pieces[last - 1][1])
        # A word's tokens are not quite the same after a space as without one.
        while last - 1 > first and passage and not _holds(text, passage, tokenizer, longest):
            last -= 1
            passage = _stripped(text, pieces[first][0], pieces[last - 1][1])
        # One that the last passage holds is nothing new.
        if passage is not None and not (found and passage.end <= found[-1].end):
            found.append(passage)
        first = last if last == len(pieces) else _back(pieces, first, last, overlap, longest)
    return found


def _back(
    pieces: list[tuple[int, int, int]], first: int, last: int, overlap: int, longest: int
) -> int:
    """Return where the next passage begins: before ``last`` by whole pieces of the overlap."""
    begin, shared = last, 0
    while begin - 1 > first and shared + pieces[begin - 1][2] <= overlap:
        begin -= 1
        shared += pieces[begin][2]
    # The next piece has to fit behind what is repeated, or nothing would be gained.
    while begin < last and shared + pieces[last][2] > longest:
        shared -= pieces[begin][2]
        begin += 1
    return begin


def _holds(text: str, passage: Passage, tokenizer: Tokenizer, longest: int) -> bool:
    return _fits(text[passage.start : passage.end], tokenizer, longest)


def _fits(text: str, tokenizer: Tokenizer, longest: int) -> bool:
    return len(tokenizer.encode(text, longest + 1)) <= longest


def _pieces(text: str, tokenizer: Tokenizer, longest: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and the most tokens of each sentence, or of each part of a long one.

    One more token is allowed for each, because its first word may lose its space.
    """
    ends = [match.end() for match in _ENDS.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    for start, end in pairwise([0, *ends]):
        words = list(tokenizer.words(text[start:end]))
        total = sum(len(tokens) for _, tokens in words) + 1
        if total <= longest:
            yield start, end, total
            continue
        yield from _parts(words, start, longest)


def _parts(
    words: list[tuple[str, tuple[int, ...]]], start: int, longest: int
) -> Iterator[tuple[int, int, int]]:
    """Cut a sentence between words, into parts small enough to overlap; a long word anywhere."""
    most = max(4, longest // 8)
    begin, tokens = start, 0
    for word, found in words:
        if tokens and tokens + len(found) + 1 > most:
            yield begin, start, tokens + 1
            begin, tokens = start, 0
        if len(found) + 1 > most:
            # At most four tokens a character, and so in any part of the word.
            step = max(1, (most - 1) // 4)
            cuts = [*range(0, len(word), step), len(word)]
            for one, other in pairwise(cuts):
                yield start + one, start + other, min(4 * (other - one), longest)
            begin = start + len(word)
            tokens = 0
        else:
            tokens += len(found)
        start += len(word)
    if tokens:
        yield begin, start, tokens + 1


def _stripped(text: str, start: int, end: int) -> Passage | None:
    part = text[start:end]
    left, right = len(part) - len(part.lstrip()), len(part.rstrip())
    return Passage(start + left, start + right) if right else None


def composed(title: str, text: str, tokenizer: Tokenizer) -> str:
    """Return what is embedded for a passage: the title before it, unless it begins with that."""
    if not title or text.startswith(title):
        return text
    return f"{shortened(title, tokenizer)}\n{text}"


def shortened(title: str, tokenizer: Tokenizer) -> str:
    """Return the words of ``title`` up to LONGEST_TITLE tokens."""
    if len(title.encode("utf-8", "replace")) <= LONGEST_TITLE or _fits(
        title, tokenizer, LONGEST_TITLE
    ):
        return title
    words = list(tokenizer.words(title[: 16 * LONGEST_TITLE]))
    counts = accumulate(len(tokens) for _, tokens in words)
    kept = [word for (word, _), count in zip(words, counts, strict=True) if count <= LONGEST_TITLE]
    return "".join(kept).rstrip()
