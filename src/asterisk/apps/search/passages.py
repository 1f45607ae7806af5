"""Long texts cut into overlapping passages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, islice
from typing import NamedTuple

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


class Passage(NamedTuple):
    """``text[start:end]`` of a document, in characters."""

    start: int
    end: int


class _Span(NamedTuple):
    """A part of a text that is not cut, and the most tokens it can have."""

    start: int
    end: int
    tokens: int


class Lengths(NamedTuple):
    """The most tokens of a passage, of what neighbours share, and of a title before a passage."""

    longest: int = LONGEST
    overlap: int = OVERLAP
    title: int = LONGEST_TITLE


def fit_lengths(room: int, longest: int = LONGEST, overlap: int = OVERLAP) -> Lengths:
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
    the passages cover everything but white space. UsageError unless 0 <= overlap < longest >= 8.
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
        last = sum(total <= longest for total in accumulate(piece.tokens for piece in pieces))
        passage = _stripped(text, pieces[0].start, pieces[last - 1].end)
        # A word's tokens are not quite the same after a space as without one.
        while last > 1 and passage and (part := text[passage.start : passage.end]) != fitting:
            if _fits(part, tokenizer, longest):
                fitting = part  # an endless row of one character is counted once
                break
            last -= 1
            passage = _stripped(text, pieces[0].start, pieces[last - 1].end)
        # One that the last passage holds is nothing new.
        if passage is not None and not (found and passage.end <= found[-1].end):
            found.append(passage)
        used = last
        if last < len(pieces):  # the next passage repeats whole pieces of the overlap
            shared = 0
            while used > 1 and shared + pieces[used - 1].tokens <= overlap:
                used -= 1
                shared += pieces[used].tokens
            # The next piece has to fit behind them, or nothing would be gained.
            while used < last and shared + pieces[last].tokens > longest:
                shared -= pieces[used].tokens
                used += 1
        del pieces[:used]
        pieces += islice(coming, used)
    return found


def _fits(text: str, tokenizer: Tokenizer, longest: int) -> bool:
    return len(tokenizer.encode(text, longest + 1)) <= longest


def _pieces(text: str, tokenizer: Tokenizer, longest: int) -> Iterator[_Span]:
    """Yield each sentence, or the parts of a long one; a lost space may cost a token more."""
    start = 0
    for end in chain((match.end() for match in _ENDS.finditer(text)), [len(text)]):
        if end - start > _WINDOW:
            yield from _parts(_words(text, start, end, tokenizer), start, tokenizer, longest)
        elif end > start:
            words = [(word, len(tokens)) for word, tokens in tokenizer.words(text[start:end])]
            total = sum(count for _, count in words) + 1
            if total <= longest:
                yield _Span(start, end, total)
            else:
                yield from _parts(words, start, tokenizer, longest)
        start = end


def _words(text: str, start: int, end: int, tokenizer: Tokenizer) -> Iterator[tuple[str, int]]:
    """Yield a long sentence's words and their tokens; a window without a space is one word."""
    while start < end:
        window = text[start : min(start + _WINDOW, end)]
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
) -> Iterator[_Span]:
    """Cut a sentence between words, into parts small enough to overlap; a long word anywhere."""
    most = max(4, longest // 8)
    begin, tokens = start, 0
    for word, count in words:
        if tokens and tokens + count + 1 > most:
            yield _Span(begin, start, tokens + 1)
            begin, tokens = start, 0
        if count + 1 > most:
            yield from _cut(word, start, tokenizer, most)
            begin = start + len(word)
            tokens = 0
        else:
            tokens += count
        start += len(word)
    if begin < start:
        yield _Span(begin, start, tokens + 1)


def _cut(word: str, start: int, tokenizer: Tokenizer, most: int) -> Iterator[_Span]:
    """Cut a long word; no more than a piece is ever tokenised. One character is never cut."""
    at, size = 0, _PIECE
    while at < len(word):
        part = word[at : at + size]
        count = len(tokenizer.encode(part, most)) + 1
        if count > most and len(part) > 1:
            size = len(part) // 2
            continue
        yield _Span(start + at, start + at + len(part), count)
        at += len(part)
        size = min(2 * size, _PIECE)


def _stripped(text: str, start: int, end: int) -> Passage | None:
    part = text[start:end]
    left, right = len(part) - len(part.lstrip()), len(part.rstrip())
    return Passage(start + left, start + right) if right else None


def with_title(title: str, text: str, tokenizer: Tokenizer, longest: int = LONGEST_TITLE) -> str:
    """Return what is embedded for a passage: up to ``longest`` tokens of its title go before it."""
    if not title or text.startswith(title):
        return text
    if not _fits(title, tokenizer, longest):
        words = list(tokenizer.words(title[: 16 * LONGEST_TITLE]))
        counts = accumulate(len(tokens) for _, tokens in words)
        fitting = (word for (word, _), count in zip(words, counts, strict=True) if count <= longest)
        title = "".join(fitting).rstrip()
    return f"{title}\n{text}" if title else text
