"""Tables: TSV without quoting (as IANA has it), CSV with quotes (RFC 4180), a record a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from asterisk.sources.columns import TEXT, Columns, find, numbered
from asterisk.sources.document import Unreadable
from asterisk.sources.line_stream import lines
from asterisk.sources.opening import Opened, Piece
from asterisk.sources.options import Options

Rows = Iterator[tuple[int, list[str]]]


def read_tsv(file: Opened) -> Iterator[Piece]:
    """Yield a document a row; a quote is a character like others."""
    return _documents(file, _tabbed(file))


def read_csv(file: Opened) -> Iterator[Piece]:
    """Yield a document a row; the comma, or a semicolon if the first line has that only."""
    return _documents(file, _quoted(file))


def _documents(file: Opened, rows: Rows) -> Iterator[Piece]:
    first = next(rows, None)
    if first is None:
        return
    columns, is_header = _columns(first[1], file.options)
    width = len(first[1])
    needed = max(place for place in columns if place is not None)
    if not is_header:
        yield _piece(*first, columns)
    for number, row in rows:
        if needed < len(row) <= width:
            yield _piece(number, row, columns)
        else:
            many = "1 column" if len(row) == 1 else f"{len(row)} columns"
            file.skip(f"line {number}", f"{many} where the first line has {width}")


def _columns(first: list[str], options: Options) -> tuple[Columns, bool]:
    """Return the columns and whether the first row is a header."""
    header = options.header
    if header is None:
        single = options.field is None and len(first) == 1
        header = first[0].strip().casefold() in TEXT if single else not numbered(options)
    if header or numbered(options):
        return find(first, options, named=header), header
    if len(first) > 1 or options.field is not None:
        raise Unreadable("a table without a header needs columns by number: --field 2")
    return Columns(0, None, None), False


def _piece(number: int, row: list[str], columns: Columns) -> Piece:
    title = "" if columns.title is None else row[columns.title]
    key = "" if columns.id is None else row[columns.id].strip()
    return Piece(f"line {number}", key or str(number), title, row[columns.text])


def _tabbed(file: Opened) -> Rows:
    for number, line in lines(file):
        if line.strip("\r\n"):
            yield number, line.rstrip("\r\n").split("\t")


class _Numbered:
    """Lines for `csv`, which wants them without their numbers; keeps the number of the last."""

    def __init__(self, file: Opened) -> None:
        self.lines = lines(file)
        self.number = 0
        self.separator: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self.lines)
        return line


def _quoted(file: Opened) -> Rows:
    numbered_lines = _Numbered(file)
    first = next(numbered_lines, None)
    if first is None:
        return
    separator = ";" if ";" in first and "," not in first else ","

    def again() -> Iterator[str]:
        yield first
        yield from numbered_lines

    reader = csv.reader(again(), delimiter=separator)
    start = 0
    while True:
        # The limit is the module's own, for everybody in the process; theirs is put back.
        before = csv.field_size_limit(file.options.longest_text)
        try:
            row = next(reader, None)
        except csv.Error as failure:
            file.skip(f"line {start + 1}", f"not CSV ({failure})")
            row = []
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row:
            yield start + 1, row
        start = numbered_lines.number
