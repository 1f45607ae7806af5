"""Long texts cut into overlapping passages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

from asterisk.common.errors import UsageError
from asterisk.tokenizer import Tokenizer

# Positions past 256 are untrained in the shipped model: a passage with its title stays below them.
LONGEST, OVERLAP, LONGEST_TITLE = 128, 32, 48  # tokens
LEAST = 8
_JOINT = 1  # tokens between a title and its passage
_LEAST_ROOM = 11  # of which LEAST are left for the passage
_WINDOW = 2_040  # characters of a sentence split into words at once: a multiple of _PIECE
_PIECE = 24  # characters of a long word at once: as much of one as the tokenizer remembers

# After a full stop and its quotes, before white space; or at an empty line. East Asian full stops
# need no space. What is cut there in vain (after "Dr.") costs nothing: pieces are joined again.
_ENDS = re.compile(r"\n[ \t\r]*\n\s*|[.!?…][\"'”’»)\]]*\s+|[。！？]+\s*|\n\s*")

# Where a text may be cut and has the words of the whole. Only white space in a row reads on.
_SPACE = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True, slots=True)
class Passage:
    """``text[start:end]`` of a document, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """The most tokens of a passage, of what neighbours share, and of a title before a passage."""

    longest: int = LONGEST
    overlap: int = OVERLAP
    title: int = LONGEST_TITLE


def lengths(room: int, longest: int = LONGEST, overlap: int = OVERLAP) -> Lengths:
    """Return lengths with which a title and a passage fit into ``room`` tokens together.

    None is more than asked for. UsageError where too little room is left for a passage.
    """
    if room < _LEAST_ROOM:
        raise UsageError(
            f"the model reads {max(room, 0)} tokens of a text beside its special tokens and its "
            f"prompt: too few to search by, {_LEAST_ROOM} are needed"
        )
    title = min(LONGEST_TITLE, room // 4)
    longest = min(longest, room - title - _JOINT)
    return Lengths(longest, min(overlap, longest // 4), title)


def passages(
    text: str, tokenizer: Tokenizer, *, longest: int = LONGEST, overlap: int = OVERLAP
) -> list[Passage]:
    """Cut ``text`` between sentences into passages of at most ``longest`` tokens.

    Neighbours share at most ``overlap`` tokens, whole sentences where that is possible. Together
    the passages cover everything but white space; a blank text has none. Offsets are exact.
    UsageError unless 0 <= overlap < longest and longest is at least 8.
    """
    if not 0 <= overlap < longest or longest < LEAST:
        raise UsageError(f"passages of {longest} tokens cannot overlap by {overlap}")
    whole = _stripped(text, 0, len(text))
    if whole is None:
        return []
    if _fits(text[whole.start : whole.end], tokenizer, longest):
        return [whole]
    coming = _pieces(text, tokenizer, longest)
    found: list[Passage] = []
    fitting = ""
    # A passage's pieces and the next one. Each counts a token or more, so they are few.
    pieces = list(islice(coming, longest + 1))
    while pieces:
        last, tokens = 0, 0
        while last < len(pieces) and tokens + pieces[last][2] <= longest:
            tokens += pieces[last][2]
            last += 1
        passage = _stripped(text, pieces[0][0], pieces[last - 1][1])
        # A word's tokens are not quite the same after a space as without one.
        while last > 1 and passage and (part := text[passage.start : passage.end]) != fitting:
            if _fits(part, tokenizer, longest):
                fitting = part  # an endless row of one character is counted once
                break
            last -= 1
            passage = _stripped(text, pieces[0][0], pieces[last - 1][1])
        # One that the last passage holds is nothing new.
        if passage is not None and not (found and passage.end <= found[-1].end):
            found.append(passage)
        used = last if last == len(pieces) else _back(pieces, last, overlap, longest)
        del pieces[:used]
        pieces += islice(coming, used)
    return found


def _back(pieces: list[tuple[int, int, int]], last: int, overlap: int, longest: int) -> int:
    """Return where the next passage begins: before ``last`` by whole pieces of the overlap."""
    begin, shared = last, 0
    while begin > 1 and shared + pieces[begin - 1][2] <= overlap:
        begin -= 1
        shared += pieces[begin][2]
    # The next piece has to fit behind what is repeated, or nothing would be gained.
    while begin < last and shared + pieces[last][2] > longest:
        shared -= pieces[begin][2]
        begin += 1
    return begin


def _fits(text: str, tokenizer: Tokenizer, longest: int) -> bool:
    return len(tokenizer.encode(text, longest + 1)) <= longest


def _pieces(text: str, tokenizer: Tokenizer, longest: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and the most tokens of each sentence, or of each part of a long one.

    One more token is allowed for each, because its first word may lose its space.
    """
    start = 0
    for end in _ends(text):
        if end - start <= _WINDOW:
            words = list(tokenizer.words(text[start:end]))
            total = sum(len(tokens) for _, tokens in words) + 1
            if total <= longest:
                yield start, end, total
            else:
                counted = ((word, len(tokens)) for word, tokens in words)
                yield from _parts(counted, start, tokenizer, longest)
        else:
            yield from _parts(_words(text, start, end, tokenizer), start, tokenizer, longest)
        start = end


def _ends(text: str) -> Iterator[int]:
    end = 0
    for match in _ENDS.finditer(text):
        end = match.end()
        yield end
    if end < len(text):
        yield len(text)


def _words(text: str, start: int, end: int, tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """Yield the words of a long sentence and their tokens, at most a window of it at once.

    A window without a space between words is one word, whose tokens nobody counts.
    """
    while start < end:
        window = text[start : start + _WINDOW] if end - start > _WINDOW else text[start:end]
        if start + len(window) < end:
            spaces = list(_SPACE.finditer(window))
            if not spaces:
                yield window, len(window)
                start += len(window)
                continue
            window = window[: spaces[-1].start()]
        for word, tokens in tokenizer.words(window):
            yield word, len(tokens)
        start += len(window)


def _parts(
    words: Iterable[tuple[str, int]], start: int, tokenizer: Tokenizer, longest: int
) -> Iterator[tuple[int, int, int]]:
    """Cut a sentence between words, into parts small enough to overlap; a long word anywhere."""
    most = max(4, longest // 8)
    begin, tokens = start, 0
    for word, count in words:
        if tokens and tokens + count + 1 > most:
            yield begin, start, tokens + 1
            begin, tokens = start, 0
        if count + 1 > most:
            yield from _cut(word, start, tokenizer, most)
            begin = start + len(word)
            tokens = 0
        else:
            tokens += count
        start += len(word)
    if begin < start:
        yield begin, start, tokens + 1


def _cut(word: str, start: int, tokenizer: Tokenizer, most: int) -> Iterator[tuple[int, int, int]]:
    """Cut a long word; no more than a piece is ever tokenised. One character is never cut."""
    place, size = 0, _PIECE
    while place < len(word):
        piece = word[place : place + size]
        count = len(tokenizer.encode(piece, most)) + 1
        if count > most and len(piece) > 1:
            size = len(piece) // 2
            continue
        yield start + place, start + place + len(piece), count
        place += len(piece)
        size = min(2 * size, _PIECE)


def _stripped(text: str, start: int, end: int) -> Passage | None:
    part = text[start:end]
    left, right = len(part) - len(part.lstrip()), len(part.rstrip())
    return Passage(start + left, start + right) if right else None


def composed(title: str, text: str, tokenizer: Tokenizer, longest: int = LONGEST_TITLE) -> str:
    """Return what is embedded for a passage: the title before it, unless it begins with that."""
    if not title or text.startswith(title):
        return text
    before = shortened(title, tokenizer, longest)
    return f"{before}\n{text}" if before else text


def shortened(title: str, tokenizer: Tokenizer, longest: int = LONGEST_TITLE) -> str:
    """Return the words of ``title`` up to ``longest`` tokens."""
    if _fits(title, tokenizer, longest):
        return title
    words = list(tokenizer.words(title[: 16 * LONGEST_TITLE]))
    counts = accumulate(len(tokens) for _, tokens in words)
    kept = [word for (word, _), count in zip(words, counts, strict=True) if count <= longest]
    return "".join(kept).rstrip()
