"""What stands in the file, and whether a file is one of ours.

::

    meta        key, value                     what the index was made with
    sources     path, stamp                    files; the stamp proves that one has not changed
    documents   source, key, title, digest, first, count, text
    passages    document, start, end           ids first to first + count - 1 of a document
    words       FTS5 over the passages, contentless: the text stands in documents alone
    vectors     sqlite-vec's vec0 table over the passages, in its own shadow tables

Everything that this package reads or writes of ``vectors`` are the shadow tables, which are plain
ones: chunks of 1,024 rows, each one blob of rowids and one of vectors. So the file is the same with
the extension and without it, and a program that has it can query ``vectors`` in SQL.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from asterisk.errors import InputError
from asterisk.search.terms import TOKENIZER

APPLICATION_ID = 0x61737478  # "astx"
VERSION = 1
PAGE = 8_192  # bytes: a chunk is read in half as many steps as by the usual 4,096
CHUNK = 1_024  # rows; vec0's default
VEC0 = "0.1.9"  # whose layout this is

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
        "start INTEGER NOT NULL, end INTEGER NOT NULL)"
    ),
    "vectors_info": 'CREATE TABLE "vectors_info" (key text primary key, value any)',
    "vectors_chunks": (
        'CREATE TABLE "vectors_chunks"(chunk_id INTEGER PRIMARY KEY AUTOINCREMENT,'
        "size INTEGER NOT NULL,validity BLOB NOT NULL,rowids BLOB NOT NULL)"
    ),
    "vectors_rowids": (
        'CREATE TABLE "vectors_rowids"(rowid INTEGER PRIMARY KEY AUTOINCREMENT,id,'
        "chunk_id INTEGER,chunk_offset INTEGER)"
    ),
    "vectors_vector_chunks00": (
        'CREATE TABLE "vectors_vector_chunks00"(rowid PRIMARY KEY,vectors BLOB NOT NULL)'
    ),
}
WORDS = f"CREATE VIRTUAL TABLE words USING fts5(text, content='', {TOKENIZER})"
_WORDS_SHADOWS = {"words_data", "words_idx", "words_docsize", "words_config"}
_SYSTEM = {"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"}
ELEMENTS = {"float32": "float", "int8": "int8"}


def vectors_table(dimension: int, precision: str) -> str:
    """Return the statement that stands in the schema for the vec0 table."""
    return (
        f"CREATE VIRTUAL TABLE vectors USING vec0(embedding {ELEMENTS[precision]}[{dimension}] "
        "distance_metric=cosine)"
    )


def make(connection: sqlite3.Connection, dimension: int, precision: str) -> bool:
    """Make all tables inside the transaction under way; tell whether there is FTS5."""
    for statement in TABLES.values():
        connection.execute(statement)
    major, minor, patch = VEC0.split(".")
    connection.executemany(
        "INSERT INTO vectors_info VALUES (?, ?)",
        [
            ("CREATE_VERSION", f"v{VEC0}"),
            ("CREATE_VERSION_MAJOR", int(major)),
            ("CREATE_VERSION_MINOR", int(minor)),
            ("CREATE_VERSION_PATCH", int(patch)),
        ],
    )
    try:
        connection.execute(WORDS)
        words = True
    except sqlite3.OperationalError as failure:
        if "fts5" not in str(failure):
            raise
        words = False
    # SQLite itself writes this row for a virtual table; doing so needs no extension. A build that
    # forbids it (defensive by default) makes an index that only a vec0 query would miss.
    connection.execute("PRAGMA writable_schema=ON")
    try:
        connection.execute(
            "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) "
            "VALUES ('table', 'vectors', 'vectors', 0, ?)",
            (vectors_table(dimension, precision),),
        )
    except sqlite3.OperationalError as failure:
        if "may not be modified" not in str(failure):
            raise
    finally:
        connection.execute("PRAGMA writable_schema=OFF")
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

    Whatever else stands in the schema (a trigger, a view in a table's place) is not ours.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise InputError(f"{path} is not a search index: it belongs to another program")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise InputError(
            f"{path} has schema {version}, this version reads {VERSION}: "
            "install a newer asterisk-edge or index again into a new file"
        )
    known = {name for name, _ in TABLES.items()} | _WORDS_SHADOWS | _SYSTEM
    missing = set(TABLES)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    for kind, name, sql in rows:
        missing.discard(name)
        ours = (
            (kind == "table" and sql == TABLES[name])
            if name in TABLES
            else (kind == "table" and name in known)
            or (kind == "table" and name == "words" and sql == WORDS)
            or (kind == "table" and name == "vectors" and str(sql).startswith(_VECTORS_BEGIN))
            or (kind == "index" and sql is None and str(name).startswith("sqlite_autoindex_"))
        )
        if not ours:
            raise InputError(f"{path} is not as an index is made: {str(name)[:60]!r}")
    if missing:
        raise InputError(f"{path} is damaged: it has no table {min(missing)}")


_VECTORS_BEGIN = "CREATE VIRTUAL TABLE vectors USING vec0(embedding "


def check_used(connection: sqlite3.Connection, path: Path) -> None:
    """Check a file that is to be read: as `check`, and InputError if nothing is in it yet."""
    if is_blank(connection):
        raise InputError(f"{path} is empty; fill it with asterisk-search index")
    check(connection, path)


def check_vectors(
    connection: sqlite3.Connection, path: Path, dimension: int, precision: str
) -> None:
    """Raise InputError unless the vec0 table stands in the schema as `make` writes it."""
    row = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'vectors'").fetchone()
    if row is None or row[0] != vectors_table(dimension, precision):
        raise InputError(f"{path} has no vec0 table as this version makes it: use --engine scan")
