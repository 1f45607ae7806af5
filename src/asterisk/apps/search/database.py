"""The SQLite file of an index: its tables, connections to it, its errors, its writer's lock.

::

    meta        key, value                     the settings that the index was made with
    sources     path, stamp, kind              files; the stamp proves that one has not changed
    documents   source, key, title, digest, first, count, text, date, author, tags (a JSON list)
    passages    document, start, end, slot     ids first to first + count - 1 of a document
    blocks      vectors                        the vectors of slots SLOTS * id and following
    vectors     passage, vector                a view: one row a vector
    words       FTS5 over the passages, contentless: the text is in documents alone

Slots are 0 to n - 1 without a gap. A block holds SLOTS vectors, one after the other, int8 or
little-endian float32; behind the last slot in use its bytes mean nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from asterisk.apps.search.passages import LONGEST, OVERLAP
from asterisk.artifact import InSpace, is_artifact, open_artifact, spaces
from asterisk.common.errors import ArtifactError, AsteriskError, InputError, OutputError, UsageError
from asterisk.common.terminal import printable
from asterisk.model.config import check_prompt_name

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime


if sys.platform != "win32":
    import fcntl

APPLICATION_ID = 0x61737478  # "astx"
VERSION = 2
PAGE = 8_192  # bytes: a block is read in half as many steps as by SQLite's 4,096
# NumPy wants large blocks. But SQLite before 3.43 reads a whole block for each row of the view.
SLOTS = 64
LONGEST_VALUE = 128 << 20  # bytes of one text or blob
PRAGMAS = (
    "trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY",
    "cache_size=-2048",  # KiB
)  # fmt: skip
BUSY = 5.0  # seconds
LARGEST_DIMENSION = 1 << 14
LARGEST_SETTING = 1 << 16  # characters
PRECISIONS = ("int8", "float32")
TOKENIZER = 'tokenize="unicode61 remove_diacritics 2"'

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
_INTERNAL = {  # of FTS5 and of ANALYZE
    "words_data", "words_idx", "words_docsize", "words_config", "sqlite_stat1", "sqlite_stat4",
}  # fmt: skip


def create_tables(connection: sqlite3.Connection) -> bool:
    """Create all tables inside the current transaction; return whether there is FTS5."""
    for statement in TABLES.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    try:
        connection.execute(WORDS)
    except sqlite3.OperationalError as failure:
        if "fts5" not in str(failure):
            raise
        return False
    return True


def check_schema(connection: sqlite3.Connection, path: Path) -> bool:
    """Raise InputError unless the file is an index of this version with its tables and no more.

    Return False for an empty one, as after a kill before the first commit.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    objects = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    if not application and not objects:
        return False
    if application != APPLICATION_ID:
        raise InputError(f"{path} is not a search index: it belongs to another program")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        raise InputError(f"{path} was made by an earlier version: index again into a new file")
    if version > VERSION:
        raise InputError(f"{path} was made by a newer version: install a newer asterisk-edge")
    ours = TABLES | {"words": WORDS}
    for kind, name, sql in objects:
        if kind == "index":
            expected = sql is None and str(name).startswith("sqlite_autoindex_")
        else:
            expected = kind == ("view" if name == "vectors" else "table") and (
                sql == ours[name] if name in ours else name in _INTERNAL
            )
        if not expected:
            raise InputError(f"{path} is not as an index is made: {str(name)[:60]!r}")
    if missing := TABLES.keys() - {name for _, name, _ in objects}:
        raise InputError(f"{path} is damaged: it has no table {min(missing)}")
    return True


def is_file(path: Path) -> bool:
    """Return whether there is a file; InputError for anything but a plain one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a file")
    return True


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Connect without a way to change the file; a writer is not in the way."""
    try:
        return connect(path, "mode=ro")
    except sqlite3.OperationalError as failure:
        # A write-ahead log needs a file beside it. Where none may be made and there is no log,
        # nobody is writing either.
        log = path.with_name(path.name + "-wal")
        unwritable = _code(failure) in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
        if not unwritable or (log.exists() and log.stat().st_size):
            raise
        return connect(path, "immutable=1")


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Connect by SQLite's URI parameter ``mode``, and read the schema to see that it works."""
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?{mode}",
        uri=True,
        timeout=BUSY,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything inside as one, or undo all of it."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def sqlite_errors(path: Path, *, writing: bool = False, foreign: bool = False) -> Iterator[None]:
    """Raise SQLite's errors as InputError or OutputError.

    ``foreign``: the code of others runs inside, and its own UnicodeDecodeError passes.
    """
    try:
        yield
    except sqlite3.Error as failure:
        raise _own_error(path, failure, writing) from failure
    except UnicodeDecodeError as failure:
        if foreign:
            raise
        # Of a message of SQLite itself, which quotes damaged names byte by byte.
        raise InputError(f"{path} is damaged; index again into a new file") from failure


def _own_error(path: Path, failure: sqlite3.Error, writing: bool) -> AsteriskError:
    code = _code(failure)
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is not a search index")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return OutputError(f"{path} is in use by another process; try again")
    if code == sqlite3.SQLITE_FULL:
        return OutputError(f"cannot write {path}: no space left; what was indexed so far is kept")
    if code == sqlite3.SQLITE_READONLY:
        return OutputError(f"cannot write {path}: it is read-only")
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}:
        what = "write" if writing else "read"
        return (OutputError if writing else InputError)(f"cannot {what} {path}: {failure}")
    return InputError(f"{path} is damaged ({printable(str(failure))}); index again into a new file")


def _code(failure: sqlite3.Error) -> int:
    return (getattr(failure, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF


@contextlib.contextmanager
def writer_lock(path: Path) -> Iterator[None]:
    """Hold a locked file beside the index; OutputError where another process has it.

    SQLite's own locks last for one transaction, and an update is many. Windows has none: there
    SQLite's still keep each batch whole.
    """
    lock = path.with_name(path.name + "-lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            descriptor = os.open(lock, flags, 0o666)
        except OSError as failure:
            raise OutputError(f"cannot write {path}: {failure.strerror or failure}") from None
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed the file in between: the lock must be on the name.
            if os.path.samestat(os.fstat(descriptor), os.lstat(lock)):
                break
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise OutputError(f"{path} is being written by another process; try again") from None
        except OSError:
            break  # a file system without locks
        os.close(descriptor)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The settings stored in an index's ``meta`` table."""

    artifact: str  # the folder that it was made with, or last written with
    fingerprint: str  # its embedding space
    compatible_with: tuple[str, ...]  # others whose vectors may be compared with these
    model: str
    format: str
    recipe: str
    dimension: int
    precision: str
    longest: int = LONGEST  # tokens of a passage
    overlap: int = OVERLAP
    words: bool = True  # whether there is an FTS5 table
    prompt_name: str | None = None  # that documents get; None: the model's own for documents

    @classmethod
    def from_artifact(
        cls, artifact: Path, precision: str | None, runtime: Runtime | None, prompt_name: str | None
    ) -> Self:
        """Return the settings for an artifact, or for a checkpoint folder and its ``runtime``."""
        precision = precision or "int8"
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be int8 or float32, not {precision!r}")
        # As UTF-8 whatever the locale: another process may have another one.
        path = os.fsencode(artifact.absolute()).decode("utf-8", "surrogateescape")
        model: InSpace
        if is_artifact(artifact):
            model = manifest = open_artifact(artifact).manifest
            about = manifest.name, manifest.format, manifest.recipe, manifest.model.embedding_size
            prompts = manifest.prompts
        elif runtime is None:
            raise ArtifactError(f"{artifact} is not an artifact")
        else:
            model, prompts = runtime, runtime.prompts
            about = Path(path).name, runtime.format, "fp32", runtime.config.embedding_size
        check_prompt_name(prompt_name, prompts)
        others = spaces(model)[1:]
        return cls(path, model.fingerprint, others, *about, precision, prompt_name=prompt_name)

    @classmethod
    def read(cls, connection: sqlite3.Connection, path: Path) -> Self:
        """Read the ``meta`` table; InputError unless it says everything in its proper type."""
        query = "SELECT key, value FROM meta WHERE length(value) <= ?"
        try:
            rows = connection.execute(query, (LARGEST_SETTING,)).fetchmany(100)
            values = {key: json.loads(value) for key, value in rows}
            values["compatible_with"] = tuple(values["compatible_with"])
            settings = cls(**values)
            if len(values) == len(fields(cls)) and settings._is_valid():
                return settings
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise InputError(f"{path} is damaged: its settings cannot be read")

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the ``meta`` table, inside the current transaction."""
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in asdict(self).items()],
        )

    def _is_valid(self) -> bool:
        names = self.artifact, self.fingerprint, self.model, self.format, self.recipe
        return (
            all(isinstance(name, str) for name in (*names, *self.compatible_with))
            and "\0" not in self.artifact
            and all(type(it) is int for it in (self.dimension, self.longest, self.overlap))
            and 1 <= self.dimension <= LARGEST_DIMENSION
            and self.precision in PRECISIONS
            and 0 <= self.overlap < self.longest <= 1 << 20
            and type(self.words) is bool
            and isinstance(self.prompt_name, str | None)
        )
