"""Plain text: a document a file, or one a line."""

from __future__ import annotations

from collections.abc import Iterator

from asterisk.sources.decoding import text_of
from asterisk.sources.line_stream import lines
from asterisk.sources.opening import Opened, Piece


def read_text(file: Opened) -> Iterator[Piece]:
    """Yield the file as one document without a title."""
    yield Piece("", "", "", text_of(file))


def read_lines(file: Opened) -> Iterator[Piece]:
    """Yield each line that is not blank; its number is its key."""
    for number, line in lines(file):
        if line.strip():
            yield Piece(f"line {number}", str(number), "", line)
