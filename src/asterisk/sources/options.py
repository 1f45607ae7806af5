"""Which files are read, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KINDS = ("text", "lines", "markdown", "html", "pdf", "jsonl", "tsv", "csv", "feed")


@dataclass(frozen=True, slots=True)
class Database:
    """A SQLite file and the query whose rows are documents."""

    path: Path
    query: str


@dataclass(frozen=True, slots=True)
class Options:
    """How sources are found and read.

    ``kind`` None decides file by file, by name and first bytes; with ``lines``, what is plain text
    is one document a line. ``encoding`` is for what is not UTF-8 and does not say what it is.
    ``field``, ``title_field`` and
    ``id_field`` name JSON members, or the columns of a table or query (from 1 where they are
    numbers). ``include`` and ``exclude`` are globs over names and paths. ``largest_file`` is in
    bytes and holds for what is read as a whole; ``longest_text`` is in characters and holds for
    every document: a longer one is refused, never cut. ``query_seconds`` bounds a SQLite query.
    """

    kind: str | None = None
    lines: bool = False
    encoding: str | None = None
    field: str | None = None
    title_field: str | None = None
    id_field: str | None = None
    header: bool | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: bool = False
    hidden: bool = False
    databases: tuple[Database, ...] = ()
    largest_file: int = 64 << 20
    longest_text: int = 8 << 20
    query_seconds: float = 60.0
