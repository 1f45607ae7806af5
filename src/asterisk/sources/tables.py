"""Tables: TSV without quoting (as IANA has it), CSV with quotes (RFC 4180), a record a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain

from asterisk.sources.columns import TEXT, Columns, find, numbered
from asterisk.sources.document import Unreadable
from asterisk.sources.line_stream import ENDS, lines
from asterisk.sources.opening import Opened, Piece
from asterisk.sources.options import Options

Rows = Iterator[tuple[int, list[str]]]


def read_tsv(file: Opened) -> Iterator[Piece]:
    """Yield a document a row; a quote is a character like others."""
    source = _Lines(file)
    return _documents(source, _tabbed(source))


def read_csv(file: Opened) -> Iterator[Piece]:
    """Yield a document a row; the comma, or a semicolon if the first line has that only."""
    source = _Lines(file)
    return _documents(source, _quoted(source))


class _Lines:
    """Lines for `csv`, which wants them without their numbers; keeps those of the last."""

    def __init__(self, file: Opened) -> None:
        self.file, self.lines = file, lines(file)
        self.number, self.last, self.ended = 0, "", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines, None)
        if line is None:
            self.ended = True
            raise StopIteration
        self.number, self.last = line
        return self.last


def _documents(source: _Lines, rows: Rows) -> Iterator[Piece]:
    """Yield the rows that have the first one's columns; Unreadable for a table that is cut off."""
    first = next(rows, None)
    if first is None:
        return
    columns, is_header = _columns(first[1], source.file.options)
    width = len(first[1])
    needed = max(place for place in columns if place is not None)
    if not is_header:
        yield _piece(*first, columns)
    for number, row in rows:
        if needed < len(row) <= width:
            yield _piece(number, row, columns)
            continue
        many = "1 column" if len(row) == 1 else f"{len(row)} columns"
        reason = f"{many} where the first line has {width}"
        if len(row) < width and not source.last.endswith(ENDS):
            raise Unreadable(f"line {number} has {reason}, and no line end: cut off?")
        source.file.skip(f"line {number}", reason)


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


def _tabbed(source: _Lines) -> Rows:
    for line in source:
        if line.strip("\r\n"):
            yield source.number, line.rstrip("\r\n").split("\t")


def _quoted(source: _Lines) -> Rows:
    first = next(source, None)
    if first is None:
        return
    separator = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(chain([first], source), delimiter=separator)
    start = 0
    while True:
        # The limit is the module's own, for everybody in the process; theirs is put back.
        before = csv.field_size_limit(source.file.options.longest_text)
        try:
            row = next(reader, None)
        except csv.Error as failure:
            source.file.skip(f"line {start + 1}", f"not CSV ({failure})")
            row = []
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if source.ended:  # within a record
            raise Unreadable(f"a quote that opens in line {start + 1} does not end: cut off?")
        if row:
            yield start + 1, row
        start = source.number
