"""Texts from files or standard input: plain lines or JSON lines, always UTF-8."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from asterisk.errors import InputError

LONGEST_LINE = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One text, where it stands (for messages) and the id its source gave it, if any."""

    text: str
    place: str
    id: str | int | None = None


def read(
    paths: Sequence[Path],
    *,
    json_lines: bool | None,
    field: str,
    longest: int = LONGEST_LINE,
) -> Iterator[Record]:
    """Yield the texts of ``paths`` in order, of standard input for ``-`` or none at all.

    ``json_lines`` None decides by a name ending in ``.jsonl`` or ``.ndjson``. A JSON line is a
    string, or an object with the text in ``field`` and perhaps an ``id``. InputError names the
    place of what is not UTF-8, not JSON, without a text, or a line of more than ``longest`` bytes.
    """
    for path in paths or [Path("-")]:
        as_json = path.suffix in {".jsonl", ".ndjson"} if json_lines is None else json_lines
        if str(path) == "-":
            yield from _lines(sys.stdin.buffer, "standard input", as_json, field, longest)
            continue
        try:
            with path.open("rb") as file:
                yield from _lines(file, str(path), as_json, field, longest)
        except OSError as failure:
            raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None


def _lines(file: BinaryIO, name: str, as_json: bool, field: str, longest: int) -> Iterator[Record]:
    number = 0
    while raw := file.readline(longest + 1):
        number += 1
        place = f"{name}, line {number}"
        if len(raw) > longest:
            size = f"{longest >> 20} MB" if longest >> 20 else f"{longest >> 10} KB"
            raise InputError(f"{place}: longer than {size}")
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
            if number == 1:
                line = line.removeprefix("\ufeff")  # a byte order mark is no text
        except UnicodeDecodeError as failure:
            raise InputError(f"{place}: not UTF-8 (byte {failure.start + 1})") from None
        yield _record(line, place, field) if as_json else Record(line, place)


def _record(line: str, place: str, field: str) -> Record:
    if not line.strip():
        return Record("", place)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{place}: not JSON") from None
    if isinstance(value, str):
        return Record(value, place)
    if isinstance(value, dict) and isinstance(value.get(field), str):
        given = value.get("id")
        return Record(value[field], place, given if isinstance(given, (str, int)) else None)
    raise InputError(f"{place}: neither a string nor an object with a string in {field!r}")


def kept(records: Iterable[Record], on_empty: str) -> Iterator[Record]:
    """Yield the records to be encoded; ``on_empty`` is "error", "skip" or anything that keeps."""
    for record in records:
        if not record.text.strip():
            if on_empty == "error":
                raise InputError(f"{record.place}: empty text; see --on-empty")
            if on_empty == "skip":
                continue
        yield record
