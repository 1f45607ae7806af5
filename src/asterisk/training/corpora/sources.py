"""Rows of text out of files, plain or compressed, and of datasets, which are streamed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from asterisk.common.corpus import LINES, Row, name, rows
from asterisk.common.errors import InputError, one_line
from asterisk.common.plugins import require
from asterisk.common.text_files import lines

RECORDS = (".jsonl", ".ndjson")
LONGEST_RECORD = 16 << 20  # bytes; a record cannot be cut
NO_TEXTS = "qrels.tsv"  # of an evaluation set: ids alone
Pick = Callable[[dict[str, Any]], Row]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that can be read once, under a name."""

    name: str
    read: Callable[[], Iterable[Row]]


def file_source(path: Path, pick: Pick | None = None) -> Source:
    """Return the source that a file is; JSON lines need ``pick`` to make rows of records."""
    if any(ending in path.suffixes for ending in RECORDS):
        if pick is None:
            raise InputError(f"{path} is JSON lines: name the fields that are text by --columns")
        return Source(name(path), lambda: picked(records(path), pick, str(path)))
    if not any(kind in path.suffixes for kind in LINES):
        raise InputError(f"{path} is none of: {', '.join((*LINES, *RECORDS))}")
    return Source(name(path), lambda: rows(path))


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each object of a JSON lines file; InputError names the line of anything else."""
    for position, line in lines(path, LONGEST_RECORD, "replace"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{position}: not JSON") from None
        if not isinstance(value, dict):
            raise InputError(f"{position}: no JSON object")
        yield value


def columns(names: tuple[str, ...]) -> Pick:
    """Return what makes a row of a record's fields; a record that lacks one gives no row."""

    def pick(record: dict[str, Any]) -> Row:
        texts = tuple(text for name in names if isinstance(text := record.get(name), str))
        return texts if len(texts) == len(names) else ()

    return pick


def picked(found: Iterable[dict[str, Any]], pick: Pick, origin: str) -> Iterator[Row]:
    """Yield the row of each record; InputError if there were records, but never a row."""
    any_row, first = False, ""
    for record in found:
        yield (row := pick(record))
        any_row = any_row or bool(row)
        first = first or ", ".join(list(record)[:8])
    if first and not any_row:
        raise InputError(f"{origin}: no record has the fields asked for; the first has {first}")


def dataset_source(name: str, split: str, pick: Pick, configuration: str | None = None) -> Source:
    """Return a split of a dataset, or of a folder of data files; InputError on reading it."""
    datasets: Any = require("datasets", "datasets")
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # our one line says it
    short = f"{name.rstrip('/').split('/')[-1]}-{split}".replace(".", "_")

    def stream() -> Iterator[dict[str, Any]]:
        # Whatever the library and those below it raise for a name, a file or a network.
        action = "open"
        try:
            found = iter(datasets.load_dataset(name, configuration, split=split, streaming=True))
            action = "read"
            yield from found
        except Exception as failure:
            raise InputError(f"cannot {action} the dataset {name}: {one_line(failure)}") from None

    return Source(short, lambda: picked(stream(), pick, name))


def evaluation_texts(folder: Path) -> Iterator[str]:
    """Yield every text of an evaluation set or a folder of sets; InputError if there is none."""
    kinds = ("*.tsv", "*/*.tsv", "*.txt", "*/*.txt")
    found = sorted(path for kind in kinds for path in folder.glob(kind) if path.name != NO_TEXTS)
    if not folder.is_dir():
        raise InputError(f"{folder} holds no evaluation set: there is no such folder")
    if not found:
        raise InputError(f"{folder} holds no evaluation set: no .tsv or .txt file")
    for path in found:
        for row in rows(path):
            yield from row[1:] if path.suffix == ".tsv" else row  # a label, a score or an id first


class Preset(NamedTuple):
    """How records become rows, and the fewest words that each text of a row must have."""

    pick: Pick
    fewest_words: int


def newsroom(record: dict[str, Any]) -> Row:
    """Return an article's summary with its first paragraph; no row if it lacks one of them."""
    summary, text = record.get("summary"), record.get("text")
    if not isinstance(summary, str) or not isinstance(text, str):
        return ()
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    return (summary, paragraph) if summary.strip() and paragraph else ()


# NEWSROOM's JSON lines as the original project prepared them: a summary with its article's first
# paragraph, both over five words.
PRESETS = {"newsroom": Preset(newsroom, fewest_words=6)}
