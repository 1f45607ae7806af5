"""Texts from files or standard input: plain lines or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from asterisk.common.errors import InputError
from asterisk.common.streams.lines import LONGEST_LINE, lines

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import OnLong, Runtime

RECORDS = {".jsonl", ".ndjson"}


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

    ``json_lines`` None decides by ``.jsonl`` or ``.ndjson`` in the name. A JSON line is a string,
    or an object with the text in ``field`` and perhaps an ``id``. InputError names the place of
    what is not JSON or without a text; see also `lines`.
    """
    for path in paths or [Path("-")]:
        as_json = not RECORDS.isdisjoint(path.suffixes) if json_lines is None else json_lines
        for place, line in lines(path, longest):
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


def embedded(
    runtime: Runtime,
    records: Sequence[Record],
    prompt_name: str | None,
    on_long: OnLong,
    **options: Any,
) -> npt.NDArray[Any]:
    """Embed the texts of ``records`` by `Runtime.encode`, whose ``options`` are taken.

    InputError names the place of a text that is refused.
    """
    given: dict[str, Any] = {"prompt_name": prompt_name, "on_long": on_long, **options}
    try:
        return runtime.encode([record.text for record in records], **given)
    except InputError as failure:
        prompt = runtime.prompt(prompt_name)
        for record in records:
            try:
                runtime.tokenize(prompt + record.text, on_long)
            except InputError:
                raise InputError(f"{record.place}: {failure}") from None
        raise
