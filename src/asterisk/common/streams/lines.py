"""Lines of text files, however their system writes them.

UTF-8, or UTF-16 and UTF-32 behind a byte order mark; a line ends in LF, CR LF or CR; a file named
.gz or .zst is unpacked.
"""

from __future__ import annotations

import codecs
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from asterisk.common.errors import InputError, one_line
from asterisk.common.streams.packed import open_packed

LONGEST_LINE = 64 << 20  # bytes
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _as_surrogate(failure: Any) -> tuple[str, int]:
    return "\udcff", failure.end  # which no bytes decode to


codecs.register_error("asterisk.surrogate", _as_surrogate)


def lines(
    path: Path, longest: int = LONGEST_LINE, errors: str = "asterisk.surrogate"
) -> Iterator[tuple[str, str]]:
    """Yield the place of each line, such as "notes.txt, line 3", and its text without the line end.

    ``-`` is standard input. InputError names the line that cannot be decoded (unless ``errors``
    says "replace") or has more than ``longest`` bytes, and a file that cannot be read.
    """
    with opened(path, errors) as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            place = f"{named(path)}, line {number}"
            line = line.removesuffix("\n")
            try:
                size = len(line.encode())
            except UnicodeEncodeError as failure:
                at = len(line[: failure.start].encode(file.encoding)) + 1
                raise InputError(f"{place}: not {file.encoding.upper()} (byte {at})") from None
            if size > longest:
                most = f"{longest >> 20} MB" if longest >> 20 else f"{longest >> 10} KB"
                raise InputError(f"{place}: longer than {most}")
            yield place, line


@contextmanager
def opened(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    r"""Give a file's text, or standard input's for ``-``, in which every line ends in ``\n``.

    InputError where the file cannot be read to its end.
    """
    try:
        with ExitStack() as stack:
            stream: Any = sys.stdin.buffer if str(path) == "-" else open_packed(path, stack)
            if not hasattr(stream, "peek"):
                stream = io.BufferedReader(stream)
            head = stream.peek(4)
            found = (one for one in MARKS if head.startswith(one[0]))
            mark, encoding = next(found, (b"", "utf-8"))
            stream.read(len(mark))
            text = io.TextIOWrapper(stream, encoding, errors)
            stack.callback(text.detach)  # or standard input would be closed
            yield text
    except (EOFError, zlib.error) as failure:
        raise InputError(f"{named(path)} is damaged: {one_line(failure)}") from None
    except OSError as failure:
        reason = failure.strerror or one_line(failure)
        raise InputError(f"cannot read {named(path)}: {reason}") from None


def named(path: Path) -> str:
    """Return what a message calls a file."""
    return "standard input" if str(path) == "-" else str(path)
