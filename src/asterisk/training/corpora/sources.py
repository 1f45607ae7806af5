"""Rows of text out of files: lines, columns, or fields of JSON lines, plain or compressed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from asterisk.common.errors import InputError
from asterisk.common.text_files import lines
from asterisk.common.text_files import open_text as opened

LINES = (".txt", ".tsv")
RECORDS = (".jsonl", ".ndjson")
PACKINGS = ("", ".zst", ".gz")
LONGEST_LINE = 1 << 20  # characters; a file from outside may be one endless line
LONGEST_RECORD = 16 << 20  # bytes; a record cannot be cut
Row = tuple[str, ...]
Pick = Callable[[dict[str, Any]], Row]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that can be read once, under a name."""

    name: str
    read: Callable[[], Iterable[Row]]

    def first(self, count: int | None) -> Source:
        """Return the same with ``count`` rows at most."""
        return self if count is None else Source(self.name, lambda: islice(self.read(), count))


def files(folder: Path, kinds: tuple[str, ...] = LINES) -> list[Path]:
    """Return the corpus files of ``folder``, in order; InputError if there is none."""
    endings = tuple(kind + packing for kind in kinds for packing in PACKINGS)
    found = sorted(path for path in folder.glob("*") if path.name.endswith(endings))
    if not found:
        raise InputError(f"{folder} holds no {' or '.join(kinds)} file, plain, .zst or .gz")
    return found


def name(path: Path) -> str:
    """Return a source's name: the file's, without its endings."""
    return path.name.split(".")[0]


def file_source(path: Path, pick: Pick | None = None) -> Source:
    """Return the source that a file is; JSON lines need ``pick`` to make rows of records."""
    if any(ending in path.suffixes for ending in RECORDS):
        if pick is None:
            raise InputError(f"{path} is JSON lines: name the fields that are text by --columns")
        return Source(name(path), lambda: picked(records(path), pick, str(path)))
    if not any(kind in path.suffixes for kind in LINES):
        raise InputError(f"{path} is none of: {', '.join((*LINES, *RECORDS))}")
    return Source(name(path), lambda: rows(path))


def rows(path: Path) -> Iterator[Row]:
    """Yield each line of a file as its texts: one, or the columns of a .tsv line.

    InputError if the file cannot be read to its end.
    """
    columns = ".tsv" in path.suffixes
    with opened(path, "replace") as stream:
        while line := stream.readline(LONGEST_LINE):
            plain = line.removesuffix("\n")
            yield tuple(plain.split("\t")) if columns else (plain,)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each object of a JSON lines file; InputError names the line of what is none."""
    for place, line in lines(path, LONGEST_RECORD, "replace"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{place}: not JSON") from None
        if not isinstance(value, dict):
            raise InputError(f"{place}: no JSON object")
        yield value


def columns(names: tuple[str, ...]) -> Pick:
    """Return what makes a row of a record's fields; what lacks one of them gives no row."""

    def pick(record: dict[str, Any]) -> Row:
        values = [record.get(field) for field in names]
        texts = tuple(value for value in values if isinstance(value, str))
        return texts if len(texts) == len(names) else ()

    return pick


def picked(found: Iterable[dict[str, Any]], pick: Pick, place: str) -> Iterator[Row]:
    """Yield the row of each record; InputError if records were found, but never a row."""
    seen, known = False, ""
    for record in found:
        row = pick(record)
        seen = seen or bool(row)
        known = known or ", ".join(list(record)[:8])
        yield row
    if known and not seen:
        raise InputError(f"{place}: no record has the fields asked for; the first has {known}")
