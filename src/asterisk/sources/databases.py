"""SQLite: a document a row of the user's query, which can read and do nothing else."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

from asterisk.common.errors import InputError, MissingPackage
from asterisk.sources.document import Database, Options, Unreadable
from asterisk.sources.files import OpenFile, Piece
from asterisk.sources.records import Columns, find_columns

try:
    import sqlite3
except ImportError:
    raise MissingPackage("sqlite3", "; this Python was built without it") from None

BUSY = 5.0  # seconds to wait for a writer
STEPS = 10_000  # of SQLite's machine between looks at the clock
IN_MEMORY = 4 << 20  # bytes of rows, before they go to a temporary file
_MAGIC = b"SQLite format 3\0"
_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


def read_database(file: OpenFile, database: Database) -> Iterator[Piece]:
    """Yield the rows of the query; all are fetched first, so that no lock outlives that.

    InputError for a query that cannot be meant; Unreadable for a file that is no database, is
    damaged, or needs more time than `Options.query_seconds`.
    """
    if file.head and not file.head.startswith(_MAGIC):
        raise Unreadable("not a SQLite database")
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8") as spool:
        columns = _fetch(database, file.options, spool)
        spool.seek(0)
        for number, line in enumerate(spool, 1):
            row = json.loads(line)
            text = row[columns.text]
            if text is None:
                file.skip(f"row {number}", "its text is binary")
                continue
            title = "" if columns.title is None else row[columns.title] or ""
            key = "" if columns.id is None else row[columns.id] or ""
            yield Piece(f"row {number}", key or str(number), title, text)


def _fetch(database: Database, options: Options, spool: IO[str]) -> Columns:
    """Write each row as a JSON line of strings; a blob is null, SQL's NULL an empty string."""
    deadline = time.monotonic() + options.query_seconds

    def is_late() -> bool:
        return time.monotonic() > deadline

    try:
        connection = _connect(database, options)
        try:
            connection.set_progress_handler(is_late, STEPS)
            cursor = _execute(connection, database.query)
            names = [column[0] for column in cursor.description]
            try:
                columns = find_columns(names, options)
            except Unreadable as failure:
                raise InputError(f"--query: {failure}") from None
            for row in cursor:
                cells = ["" if cell is None else cell for cell in row]
                strings = [None if isinstance(cell, bytes) else str(cell) for cell in cells]
                spool.write(json.dumps(strings) + "\n")
            return columns
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError, MemoryError) as failure:
        if is_late():
            reason = f"the query took over {options.query_seconds:g} s"
            raise Unreadable(reason, passing=True) from None
        raise Unreadable(f"SQLite: {failure or 'not enough memory'}", passing=True) from None


def _connect(database: Database, options: Options) -> sqlite3.Connection:
    name = quote(os.fsencode(database.path.absolute()))
    connection = sqlite3.connect(
        f"file:{name}?mode=ro", uri=True, timeout=BUSY, isolation_level=None
    )
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    # A crafted database can hold views and virtual tables of its own.
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, options.largest_file)
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
    except ValueError as failure:  # a NUL or lone surrogate in the query
        raise InputError(f"--query: {failure}") from None
    except (sqlite3.Error, sqlite3.Warning) as failure:
        code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_AUTH or str(failure).startswith("not authorized"):
            raise InputError(f"--query: {failure}; it may read and nothing else") from None
        if code == sqlite3.SQLITE_ERROR:
            raise InputError(f"--query: {failure}") from None
        raise
    if cursor.description is None:
        raise InputError("--query: it gives no columns")
    return cursor
