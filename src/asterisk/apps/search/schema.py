"""What stands in the file, and whether a file is one of ours.

::

    meta        key, value                     what the index was made with
    sources     path, stamp, kind              files; the stamp proves that one has not changed
    documents   source, key, title, digest, first, count, text, date, author, tags (a JSON list)
    passages    document, start, end, slot     ids first to first + count - 1 of a document
    blocks      vectors                        the vectors of slots SLOTS * id and following
    vectors     passage, vector                a view: one row a vector
    words       FTS5 over the passages, contentless: the text stands in documents alone

Slots are 0 to n - 1 without a gap. A block holds SLOTS vectors, one after the other, int8 or
little-endian float32; behind the last slot in use its bytes mean nothing.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from asterisk.apps.search.terms import TOKENIZER
from asterisk.common.errors import InputError

APPLICATION_ID = 0x61737478  # "astx"
VERSION = 2
PAGE = 8_192  # bytes: a block is read in half as many steps as by the usual 4,096
# NumPy wants large blocks. But SQLite before 3.43 reads a whole block for each row of the view.
SLOTS = 64

TABLES = {
    "meta": "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "sources": (
        "CREATE TABLE sources(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, "
        "stamp TEXT NOT NULL, kind TEXT NOT NULL DEFAULT '')"
    ),
    "documents": (
        "CREATE TABLE documents(id INTEGER PRIMARY KEY, source INTEGER NOT NULL, "
        "key TEXT NOT NULL, title TEXT NOT NULL, digest BLOB NOT NULL, "
        "first INTEGER NOT NULL, count INTEGER NOT NULL, text TEXT NOT NULL, date TEXT NOT NULL, "
        "author TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE(source, key))"
    ),
    "passages": (
        "CREATE TABLE passages(id INTEGER PRIMARY KEY, document INTEGER NOT NULL, "
        "start INTEGER NOT NULL, end INTEGER NOT NULL, slot INTEGER NOT NULL UNIQUE)"
    ),
    "blocks": "CREATE TABLE blocks(id INTEGER PRIMARY KEY, vectors BLOB NOT NULL)",
    "vectors": (
        "CREATE VIEW vectors(passage, vector) AS SELECT p.id, substr(b.vectors, "  # noqa: S608
        f"1 + p.slot % {SLOTS} * (length(b.vectors) / {SLOTS}), length(b.vectors) / {SLOTS}) "
        f"FROM passages AS p JOIN blocks AS b ON b.id = p.slot / {SLOTS}"
    ),
}
WORDS = f"CREATE VIRTUAL TABLE words USING fts5(text, content='', {TOKENIZER})"
_WORDS_SHADOWS = {"words_data", "words_idx", "words_docsize", "words_config"}
_SYSTEM = {"sqlite_stat1", "sqlite_stat4"}  # of ANALYZE


def make(connection: sqlite3.Connection) -> bool:
    """Make all tables inside the transaction under way; tell whether there is FTS5."""
    for statement in TABLES.values():
        connection.execute(statement)
    try:
        connection.execute(WORDS)
        words = True
    except sqlite3.OperationalError as failure:
        if "fts5" not in str(failure):
            raise
        words = False
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    return words


def is_blank(connection: sqlite3.Connection) -> bool:
    """Tell whether the file holds nothing at all, as after a kill before the first commit."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not application and not objects


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise InputError unless the file is an index of this version with exactly its tables.

    Whatever else stands in the schema (a trigger, another view) is not ours.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise InputError(f"{path} is not a search index: it belongs to another program")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        raise InputError(f"{path} was made by an earlier version: index again into a new file")
    if version > VERSION:
        raise InputError(f"{path} was made by a newer version: install a newer asterisk-edge")
    ours = TABLES | {"words": WORDS}
    missing = set(TABLES)
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema"):
        missing.discard(name)
        if name in ours:
            expected = sql == ours[name] and kind == ("view" if name == "vectors" else "table")
        elif kind == "index":
            expected = sql is None and str(name).startswith("sqlite_autoindex_")
        else:
            expected = kind == "table" and name in _WORDS_SHADOWS | _SYSTEM
        if not expected:
            raise InputError(f"{path} is not as an index is made: {str(name)[:60]!r}")
    if missing:
        raise InputError(f"{path} is damaged: it has no table {min(missing)}")


def check_used(connection: sqlite3.Connection, path: Path) -> None:
    """Check a file that is to be read: as `check`, and InputError if nothing is in it yet."""
    if is_blank(connection):
        raise InputError(f"{path} is empty; fill it with asterisk-search index")
    check(connection, path)
