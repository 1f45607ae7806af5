"""SQLite: a document a row of the user's query, which can read and do nothing else."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from asterisk.common.errors import InputError, MissingPackage
from asterisk.sources.columns import Columns, find
from asterisk.sources.document import Unreadable
from asterisk.sources.opening import Opened, Piece
from asterisk.sources.options import Database, Options

BUSY = 5.0  # seconds to wait for a writer
STEPS = 10_000  # of SQLite's machine between looks at the clock
IN_MEMORY = 4 << 20  # bytes of rows, before they go to a temporary file
_MAGIC = b"SQLite format 3\0"
_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


def read_database(file: Opened, database: Database) -> Iterator[Piece]:
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
            place = f"row {number}"
            text = row[columns.text]
            if text is None:
                file.skip(place, "its text is binary")
                continue
            title = "" if columns.title is None else row[columns.title] or ""
            key = "" if columns.id is None else row[columns.id] or ""
            yield Piece(place, key or str(number), title, text)


def _fetch(database: Database, options: Options, spool: IO[str]) -> Columns:
    """Write each row as a JSON line of strings; a blob is null, SQL's NULL an empty string."""
    try:
        import sqlite3
    except ImportError:
        raise MissingPackage("sqlite3", "; this Python was built without it") from None

    deadline = time.monotonic() + options.query_seconds

    def late() -> bool:
        return time.monotonic() > deadline

    try:
        connection = _connect(sqlite3, database.path, options)
        try:
            connection.set_progress_handler(late, STEPS)
            columns, rows = _execute(sqlite3, connection, database, options)
            for row in rows:
                spool.write(json.dumps([_told(value) for value in row]) + "\n")
            return columns
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError, MemoryError) as failure:
        if late():
            told = f"the query took over {options.query_seconds:g} s"
            raise Unreadable(told, passing=True) from None
        raise Unreadable(f"SQLite: {failure or 'not enough memory'}", passing=True) from None


def _connect(sqlite3: Any, path: Path, options: Options) -> Any:
    name = quote(os.fsencode(path.absolute()))
    connection = sqlite3.connect(
        f"file:{name}?mode=ro", uri=True, timeout=BUSY, isolation_level=None
    )
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    # A crafted database can hold views and virtual tables of its own.
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, options.largest_file)
    connection.set_authorizer(lambda *asked: _allowed(sqlite3, *asked))
    return connection


def _allowed(sqlite3: Any, action: int, first: str | None, second: str | None, *_: object) -> int:
    """Answer SQLite's question whether a statement may do something."""
    reading = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
    if action in reading:
        return int(sqlite3.SQLITE_OK)
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FUNCTIONS:
        return int(sqlite3.SQLITE_OK)
    # FTS5 asks its table's pragma for changes before it searches.
    if action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None:
        return int(sqlite3.SQLITE_OK)
    # A virtual table declares its columns so; the file is open for reading only.
    if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
        return int(sqlite3.SQLITE_OK)
    return int(sqlite3.SQLITE_DENY)


def _execute(
    sqlite3: Any, connection: Any, database: Database, options: Options
) -> tuple[Columns, Any]:
    try:
        rows = connection.execute(database.query)
    except ValueError as failure:  # a NUL or lone surrogate in the query
        raise InputError(f"--query: {failure}") from None
    except (sqlite3.Error, sqlite3.Warning) as failure:
        code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_AUTH or str(failure).startswith("not authorized"):
            raise InputError(f"--query: {failure}; it may read and nothing else") from None
        if code == sqlite3.SQLITE_ERROR:
            raise InputError(f"--query: {failure}") from None
        raise
    if rows.description is None:
        raise InputError("--query: it gives no columns")
    try:
        return find([column[0] for column in rows.description], options), rows
    except Unreadable as failure:
        raise InputError(f"--query: {failure}") from None


def _told(value: object) -> str | None:
    if value is None:
        return ""
    return None if isinstance(value, bytes) else str(value)
