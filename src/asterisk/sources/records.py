"""Plain text, JSON lines and tables: a document a file, a line or a row."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from asterisk.common.errors import InputError, MissingPackage
from asterisk.common.terminal import escaped
from asterisk.common.text_files import LINE_ENDS
from asterisk.sources.document import Options, Unreadable
from asterisk.sources.files import OpenFile, Piece

try:
    import sqlite3
except ImportError:
    raise MissingPackage("sqlite3", "; this Python was built without it") from None

TEXT = ("text", "body", "content")  # the first that exists, unless the user names one
BUSY = 5.0  # seconds to wait for a writer
STEPS = 10_000  # of SQLite's machine between looks at the clock
IN_MEMORY = 4 << 20  # bytes of rows, before they go to a temporary file
_MAGIC = b"SQLite format 3\0"
_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
Rows = Iterator[tuple[int, list[str]]]


def read_text(file: OpenFile) -> Iterator[Piece]:
    """Yield the file as one document without a title."""
    yield Piece("", "", "", file.text())


def read_lines(file: OpenFile) -> Iterator[Piece]:
    """Yield each line that is not blank; its number is its key."""
    for number, line in file.lines():
        if line.strip():
            yield Piece(f"line {number}", str(number), "", line)


def read_json_lines(file: OpenFile) -> Iterator[Piece]:
    """Yield a document a line: a string, or an object with a text, perhaps a title and an id."""
    texts, titles, ids = _names(file.options)
    for number, line in file.lines():
        if not line.strip():
            continue
        position = f"line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith(LINE_ENDS):
                raise Unreadable(f"{position} is not JSON and has no line end: cut off?") from None
            file.skip(position, "not JSON")
            continue
        members: dict[str, Any] = value if isinstance(value, dict) else {}
        text, title, key = (
            next((members[name] for name in names if members.get(name) is not None), None)
            for names in (texts, titles, ids)
        )
        text = value if isinstance(value, str) else text
        if isinstance(text, str):
            is_key = isinstance(key, (str, int)) and not isinstance(key, bool)
            title = title if isinstance(title, str) else ""
            yield Piece(position, str(key if is_key else number), title, text)
        else:
            wanted = " or ".join(map(repr, texts))
            file.skip(position, f"neither a string nor an object with a string in {wanted}")


def _names(options: Options) -> tuple[tuple[str, ...], ...]:
    """Return the names that text, title and id may have."""
    given = (options.field, options.title_field, options.id_field)
    pairs = zip(given, (TEXT, ("title",), ("id",)), strict=True)
    return tuple(names if name is None else (name,) for name, names in pairs)


def read_tsv(file: OpenFile) -> Iterator[Piece]:
    """Yield a document a row of TSV as IANA has it: a quote is a character like others."""
    lines = ((number, line.rstrip("\r\n")) for number, line in file.lines())
    return _read_table(file, ((number, line.split("\t")) for number, line in lines if line))


def read_csv(file: OpenFile) -> Iterator[Piece]:
    """Yield a document a row of CSV (RFC 4180), with semicolons if line 1 has no comma."""
    return _read_table(file, _csv_rows(file))


def _csv_rows(file: OpenFile) -> Rows:
    lines = (line for _, line in file.lines())
    first = next(lines, None)
    if first is None:
        return
    separator = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(chain([first], lines), delimiter=separator)
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
        if file.ended:  # within a record
            raise Unreadable(f"a quote that opens in line {start + 1} does not end: cut off?")
        if row:
            yield start + 1, row
        start = file.number


def _read_table(file: OpenFile, rows: Rows) -> Iterator[Piece]:
    """Yield the rows that have the first one's columns; Unreadable for a table that is cut off."""
    first = next(rows, None)
    if first is None:
        return
    width = len(first[1])
    columns, has_header = _table_columns(first[1], file.options)
    needed = max(column for column in columns if column is not None)
    for number, row in rows if has_header else chain([first], rows):
        if needed < len(row) <= width:
            if columns.id is not None:
                row[columns.id] = row[columns.id].strip()
            yield columns.piece("line", number, row)
            continue
        many = "1 column" if len(row) == 1 else f"{len(row)} columns"
        reason = f"{many} where the first line has {width}"
        if len(row) < width and not file.line.endswith(LINE_ENDS):
            raise Unreadable(f"line {number} has {reason}, and no line end: cut off?")
        file.skip(f"line {number}", reason)


class Columns(NamedTuple):
    """Positions from 0; None for a title or id that no column has."""

    text: int
    title: int | None = None
    id: int | None = None

    def piece(self, what: str, number: int, row: Sequence[str | None]) -> Piece:
        """Return what the row ``number`` says; its text must be there."""
        title = None if self.title is None else row[self.title]
        key = None if self.id is None else row[self.id]
        return Piece(f"{what} {number}", key or str(number), title or "", row[self.text] or "")


def _table_columns(first: list[str], options: Options) -> tuple[Columns, bool]:
    """Return the columns and whether the first row is a header."""
    given = (options.field, options.title_field, options.id_field)
    numbered = options.field is not None and all(_number(it) for it in given if it is not None)
    single = options.field is None and len(first) == 1
    header = options.header
    if header is None:
        header = first[0].strip().casefold() in TEXT if single else not numbered
    if not header and single:
        return Columns(0), False
    if not header and not numbered:
        raise Unreadable("a table without a header needs columns by number: --field 2")
    return _find_columns(first, options, named=header), header


def _find_columns(header: Sequence[str], options: Options, *, named: bool = True) -> Columns:
    """Return the columns by number, and if ``named`` by their names, without regard to case."""
    folded = [name.strip().casefold() for name in header] if named else []
    given = (options.field, options.title_field, options.id_field)
    found: list[int | None] = []
    for asked, names in zip(given, _names(options), strict=True):
        known = (folded.index(name.casefold()) for name in names if name.casefold() in folded)
        number = _number(asked or "")
        by_number = number - 1 if 0 < number <= len(header) else None
        found.append(next(known, by_number))
    text, *others = found
    if text is None:
        if options.field is None and len(header) == 1:
            return Columns(0)
        has = escaped(", ".join(name.strip() for name in header[:20])[:200])
        wanted = " or ".join(_names(options)[0])
        raise Unreadable(f"no column {wanted} among: {has} (--field takes a name or a number)")
    for asked, position in zip(given[1:], others, strict=True):
        if asked is not None and position is None:
            raise Unreadable(f"no column {asked}")
    return Columns(text, *others)


def _number(text: str) -> int:
    """Return the number that ``text`` is, 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and int(text[:9]) > 0 else 0


def read_database(file: OpenFile) -> Iterator[Piece]:
    """Yield the rows of the query; all are fetched first, so that no lock outlives that.

    InputError for a query that cannot be meant; Unreadable for other faults, or for lack of time.
    """
    if file.head and not file.head.startswith(_MAGIC):
        raise Unreadable("not a SQLite database")
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8") as spool:
        columns = _fetch(file, spool)
        spool.seek(0)
        for number, line in enumerate(spool, 1):
            row = json.loads(line)
            if row[columns.text] is None:
                file.skip(f"row {number}", "its text is binary")
            else:
                yield columns.piece("row", number, row)


def _fetch(file: OpenFile, spool: IO[str]) -> Columns:
    """Write each row as a JSON line of strings; a blob is null, SQL's NULL an empty string."""
    options, database = file.options, file.file.database
    deadline = time.monotonic() + options.query_seconds

    def is_late() -> bool:
        return time.monotonic() > deadline

    try:
        with contextlib.closing(_connect(file)) as connection:
            connection.set_progress_handler(is_late, STEPS)
            cursor = _execute(connection, database.query if database else "")
            try:
                columns = _find_columns([column[0] for column in cursor.description], options)
            except Unreadable as failure:
                raise InputError(f"--query: {failure}") from None
            for row in cursor:
                cells = ["" if cell is None else cell for cell in row]
                strings = [None if isinstance(cell, bytes) else str(cell) for cell in cells]
                spool.write(json.dumps(strings) + "\n")
            return columns
    except (sqlite3.Error, OverflowError, MemoryError) as failure:
        reason = f"SQLite: {failure or 'not enough memory'}"
        if is_late():
            reason = f"the query took over {options.query_seconds:g} s"
        raise Unreadable(reason, temporary=True) from None


def _connect(file: OpenFile) -> sqlite3.Connection:
    name = quote(os.fsencode(file.file.path.absolute()))
    connection = sqlite3.connect(
        f"file:{name}?mode=ro", uri=True, timeout=BUSY, isolation_level=None
    )
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    # A crafted database can hold views and virtual tables of its own.
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, file.options.largest_file)
    connection.set_authorizer(_authorize)
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    """Answer SQLite's question whether a statement may do something."""
    allowed = (
        action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
        or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FUNCTIONS)
        # FTS5 asks its table's pragma for changes before it searches.
        or (action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None)
        # A virtual table declares its columns so; the file is open for reading only.
        or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _execute(connection: sqlite3.Connection, query: str) -> sqlite3.Cursor:
    try:
        cursor = connection.execute(query)
    except (ValueError, sqlite3.Error, sqlite3.Warning) as failure:
        # ValueError: a NUL or lone surrogate in the query.
        code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        denied = code == sqlite3.SQLITE_AUTH or str(failure).startswith("not authorized")
        if not denied and code != sqlite3.SQLITE_ERROR:
            raise
        advice = "; it may read and nothing else" if denied else ""
        raise InputError(f"--query: {failure}{advice}") from None
    if cursor.description is None:
        raise InputError("--query: it gives no columns")
    return cursor
