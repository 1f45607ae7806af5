"""The options of commands that read documents from files, folders and databases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asterisk.cli.common import positive
from asterisk.common.errors import UsageError
from asterisk.common.terminal import report
from asterisk.sources.document import KINDS, Database, Options, Report
from asterisk.sources.files import codec_of


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files are read, and how; not the paths themselves."""
    add = parser.add_argument_group("sources").add_argument
    flag: dict[str, Any] = {"action": "store_true"}
    several: dict[str, Any] = {"action": "append", "default": []}
    header = "a table's first line names its columns (default: unless they are numbers)"
    add("--include", **several, metavar="GLOB", help="only these")
    add("--exclude", **several, metavar="GLOB", help="not these")
    add("--follow", **flag, help="follow links to folders")
    add("--hidden", **flag, help="names that begin with a dot, too")
    add("--kind", choices=KINDS, help="default: by each file's name and first bytes")
    add("--lines", **flag, help="plain text is one document a line")
    add("--encoding", help="of files that are not UTF-8 and do not say what they are")
    add("--field", help="JSON member or column (name or number) of the text (text)")
    add("--title-field", help="of the title (title)")
    add("--id-field", help="of the id (id)")
    add("--header", action=argparse.BooleanOptionalAction, help=header)
    database = "a SQLite database; each needs its --query"
    add("--sqlite", **several, type=Path, metavar="FILE", help=database)
    add("--query", **several, metavar="SQL", help="a row is a document")
    add("--query-seconds", type=positive, default=60, help="a query's time (60)")
    add("--max-file", type=positive, default=64, metavar="MB", help="read as a whole (64)")
    add("--max-text", type=positive, default=8 << 20, metavar="N", help="characters (8388608)")
    add("--strict", **flag, help="stop at what would be skipped")


def reading_options(arguments: argparse.Namespace) -> Options:
    """Return the `Options` of a command line; UsageError for what does not go together."""
    files, queries = arguments.sqlite, arguments.query
    if len(files) != len(queries):
        raise UsageError(f"{len(files)} --sqlite and {len(queries)} --query: each needs the other")
    if len({file.absolute() for file in files}) < len(files):
        raise UsageError("a database is given twice: use one query with UNION ALL")
    if arguments.encoding is not None and codec_of(arguments.encoding) is None:
        raise UsageError(f"unknown encoding {arguments.encoding!r}")
    same = "kind lines encoding field title_field id_field header follow hidden"
    return Options(
        **{name: getattr(arguments, name) for name in same.split()},
        include=tuple(arguments.include),
        exclude=tuple(arguments.exclude),
        databases=tuple(map(Database, files, queries)),
        largest_file=arguments.max_file << 20,
        longest_text=arguments.max_text,
        query_seconds=float(arguments.query_seconds),
    )


def skip_report(arguments: argparse.Namespace) -> Report:
    """Return a report that prints each line on standard error, or raises under ``--strict``."""
    return Report(report, strict=arguments.strict)
