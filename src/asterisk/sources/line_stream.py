"""A file's lines, one at a time, in memory that does not grow with the file."""

from __future__ import annotations

import io
from collections.abc import Iterator

from asterisk.sources.decoding import known, marked, wide
from asterisk.sources.document import Unreadable
from asterisk.sources.opening import Opened

LONGEST = 16 << 20  # bytes


def lines(file: Opened) -> Iterator[tuple[int, str]]:
    """Yield each line's number, from 1, and its text with the line end it has.

    Lines that are too long or in another encoding are reported and left out. What was appended
    since the file was opened is not read.
    """
    mark = marked(file.head)
    with file.stream() as stream:
        if mark is not None:
            stream.read(mark[1])
        encoding = mark[0] if mark else file.options.encoding
        if encoding is not None and wide(encoding):
            yield from _wide(file, stream, known(encoding) or encoding)
        else:
            yield from _narrow(file, stream)


def _narrow(file: Opened, stream: io.BufferedReader) -> Iterator[tuple[int, str]]:
    number = taken = 0
    while raw := stream.readline(LONGEST + 1):
        number, taken = number + 1, taken + len(raw)
        if len(raw) > LONGEST:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(1 << 20)
                taken += len(raw)
            _too_long(file, number)
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError as failure:
            try:
                text = raw.decode(file.options.encoding or "ascii")
            except UnicodeDecodeError:
                told = f"not UTF-8 (byte {failure.start + 1:,} of the line; see --encoding)"
                file.skip(f"line {number}", told)
                continue
        yield number, text
    mark = marked(file.head)
    if taken + (mark[1] if mark else 0) < file.size:
        file.skip("", "became shorter while it was read")


def _wide(file: Opened, stream: io.BufferedReader, encoding: str) -> Iterator[tuple[int, str]]:
    text = io.TextIOWrapper(stream, encoding, newline="\n")
    number = 0
    try:
        while line := text.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                while line and not line.endswith("\n"):
                    line = text.readline(1 << 20)
                _too_long(file, number)
                continue
            yield number, line
    except UnicodeDecodeError:
        raise Unreadable(f"not {encoding.upper()} after line {number}") from None


def _too_long(file: Opened, number: int) -> None:
    file.skip(f"line {number}", f"longer than {LONGEST >> 20} MB")
