"""A file's lines, one at a time, in memory that does not grow with the file."""

from __future__ import annotations

import io
from collections.abc import Iterator

from asterisk.sources.decoding import ERRORS, encoding_of
from asterisk.sources.opening import Opened

LONGEST = 16 << 20  # characters
ENDS = ("\n", "\r")


def lines(file: Opened) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text with the line end it has: LF, CR or both.

    Lines that are too long are reported and left out. What was appended since the file was opened
    is not read, and neither is a last line that a damaged file has not to its end.
    """
    encoding, start = encoding_of(file)
    with file.stream() as stream:
        stream.read(start)
        text = io.TextIOWrapper(stream, encoding, ERRORS, newline="")
        number = 0
        while line := text.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST and not line.endswith(ENDS):
                while line and not line.endswith(ENDS):
                    line = text.readline(1 << 20)
                file.skip(f"line {number}", f"longer than {LONGEST >> 20} MB")
            elif line.endswith(ENDS) or not file.flaw:
                yield number, line
