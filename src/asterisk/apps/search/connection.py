"""Connections to the file, and what SQLite says as one line a person can act on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from asterisk.common.errors import AsteriskError, InputError, OutputError
from asterisk.common.terminal import printable

LONGEST_VALUE = 128 << 20  # bytes of one text or blob
CACHE = 2 << 10  # KiB
BUSY = 5.0  # seconds


@contextlib.contextmanager
def sqlite_errors(path: Path, *, writing: bool = False, foreign: bool = False) -> Iterator[None]:
    """Raise what SQLite raises as InputError, or as OutputError while writing.

    ``foreign`` says that others' code runs inside, whose own errors are none of ours.
    """
    try:
        yield
    except sqlite3.Error as failure:
        raise translated(path, failure, writing=writing) from failure
    except UnicodeDecodeError as failure:
        if foreign:
            raise
        # Of a message of SQLite itself, which quotes damaged names byte by byte.
        raise InputError(f"{path} is damaged; index again into a new file") from failure


def translated(path: Path, failure: sqlite3.Error, *, writing: bool) -> AsteriskError:
    """Return the error of this package that says the same."""
    code = (getattr(failure, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is not a search index")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OutputError(f"{path} is in use by another process; try again")
    if code == sqlite3.SQLITE_FULL:
        return OutputError(f"cannot write {path}: no space left; what was indexed so far is kept")
    if code == sqlite3.SQLITE_READONLY:
        return OutputError(f"cannot write {path}: it is read-only")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        what = "write" if writing else "read"
        return (OutputError if writing else InputError)(f"cannot {what} {path}: {failure}")
    return InputError(f"{path} is damaged ({printable(str(failure))}); index again into a new file")


def check_file(path: Path, *, missing: bool) -> bool:
    """Tell whether there is a plain file; raise InputError for anything else in its place."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if missing:
            return False
        raise InputError(f"{path} does not exist; make it with asterisk-search index") from None
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a file")
    return True


def to_read(path: Path) -> sqlite3.Connection:
    """Connect without a way to change the file; a writer is not in the way."""
    try:
        return _reading(path, "mode=ro")
    except sqlite3.OperationalError as failure:
        # A write-ahead log needs a file beside it. Where none may be made and there is no log,
        # nobody is writing either.
        log = path.with_name(path.name + "-wal")
        unwritable = getattr(failure, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
        if not unwritable or (log.exists() and log.stat().st_size):
            raise
        return _reading(path, "immutable=1")


def _reading(path: Path, how: str) -> sqlite3.Connection:
    connection = _connect(f"file:{quote(os.fsencode(path.absolute()))}?{how}")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def to_write(path: Path) -> sqlite3.Connection:
    """Connect to a file that is there or not, with a write-ahead log."""
    connection = _connect(f"file:{quote(os.fsencode(path.absolute()))}?mode=rwc")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA mmap_size=0")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA cache_size=-{CACHE}")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside as one, or undo all of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def no_folder(path: Path) -> OutputError:
    """Say that the folder of ``path`` is not there."""
    return OutputError(f"cannot write {path}: no such folder")
