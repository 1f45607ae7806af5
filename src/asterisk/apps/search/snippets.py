"""The part of a passage that shows why it was found."""

from __future__ import annotations

from collections.abc import Collection

from asterisk.apps.search.terms import places
from asterisk.common.terminal import printable

WIDTH = 220  # characters
LONGEST = 20_000  # characters looked at: a passage of 128 tokens is rarely beyond 1,000


def snippet(text: str, terms: Collection[str], width: int = WIDTH) -> str:
    """Return about ``width`` characters of ``text``, on one line and fit for a terminal.

    The window with the most different ``terms`` (folded words), longer ones counting more; the
    beginning where there is none. An ellipsis stands where something is left out.
    """
    clean = printable(text[:LONGEST])
    if len(clean) <= width:
        return clean
    start = _window(places(clean, frozenset(terms)), width * 3 // 4)
    start = max(0, min(start - width // 8, len(clean) - width))
    end = start + width
    if start:  # from a word's beginning
        start = clean.find(" ", start, start + width // 4) + 1 or start
    if end < len(clean):
        end = max(clean.rfind(" ", end - width // 4, end), 0) or end
    shown = clean[start:end].strip()
    return f"{'… ' if start else ''}{shown}{' …' if end < len(clean) else ''}"


def _window(found: list[tuple[int, str]], width: int) -> int:
    """Return where the best window begins; the first among equals, 0 without any place."""
    best, begin, first = 0, 0, 0
    inside: dict[str, int] = {}
    worth = 0
    for place, term in found:
        if not inside.get(term):
            worth += 1 + len(term)
        inside[term] = inside.get(term, 0) + 1
        while place - found[first][0] > width:
            gone = found[first][1]
            inside[gone] -= 1
            if not inside[gone]:
                worth -= 1 + len(gone)
            first += 1
        if worth > best:
            best, begin = worth, found[first][0]
    return begin
