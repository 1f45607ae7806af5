"""Texts that no training saw: the fixed held-out slice of a folder of training files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from asterisk.common.errors import InputError
from asterisk.common.files import replacing_folder
from asterisk.training.corpora.clean import Cleaner, digest, held_out
from asterisk.training.corpora.sources import Row, files, name, rows

FEWEST = 100  # pairs that make a set
FACTS = "held-out.json"


def passages(path: Path) -> Iterator[str]:
    """Yield the last text of each held-out row of a training file, in order."""
    for row in _cleaned(path):
        if held_out(row):
            yield row[-1]


def make_dev(
    out: Path, corpus: Path, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, int]:
    """Write retrieval dev sets to ``out``, one for each training file with enough held-out pairs.

    A pair's first text asks for its second. A pair is left out if a row that is trained on has one
    of its texts. Returns the number of pairs by set.
    """
    pairs: dict[str, list[Row]] = {}
    asked = {digest(text) for path in files(corpus) for text in _apart(path, pairs, tell)}
    known: set[int] = set()
    for path in files(corpus):
        tell(f"{name(path)}: what is trained on")
        for row in _cleaned(path):
            if not held_out(row):
                known.update(asked.intersection(map(digest, row)))
    kept = {
        f"ret_{source}_dev": [row for row in some if not known.intersection(map(digest, row))]
        for source, some in pairs.items()
    }
    sizes = {set_: len(some) for set_, some in kept.items() if len(some) >= FEWEST}
    if not sizes:
        raise InputError(f"{corpus} has no file with {FEWEST} held-out pairs")
    with replacing_folder(out, lambda folder: (folder / FACTS).is_file()) as staging:
        for set_ in sizes:
            _write(staging / set_, kept[set_])
        (staging / FACTS).write_text(json.dumps({"pairs": sizes}, indent=1) + "\n", "utf-8")
    return sizes


def _apart(path: Path, pairs: dict[str, list[Row]], tell: Callable[[str], None]) -> Iterator[str]:
    """Collect a file's held-out pairs and yield their texts."""
    if ".tsv" not in path.suffixes:
        return
    tell(f"{name(path)}: held-out pairs")
    for row in _cleaned(path):
        if len(row) > 1 and row[0] != row[-1] and held_out(row):
            pairs.setdefault(name(path), []).append((row[0], row[-1]))
            yield row[0]
            yield row[-1]


def _cleaned(path: Path) -> Iterator[Row]:
    clean = Cleaner()
    for raw in rows(path):
        if row := tuple(text for column in raw if (text := clean(column))):
            yield row


def _write(folder: Path, pairs: Sequence[Row]) -> None:
    """Write each distinct text once; equal queries share their documents."""
    folder.mkdir()
    documents = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(row[1] for row in pairs))}
    queries = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(row[0] for row in pairs))}
    relevant = dict.fromkeys((queries[row[0]], documents[row[1]], "1") for row in pairs)
    for file, lines in (
        ("corpus.tsv", [(place, text) for text, place in documents.items()]),
        ("queries.tsv", [(place, text) for text, place in queries.items()]),
        ("qrels.tsv", list(relevant)),
    ):
        (folder / file).write_text("".join("\t".join(line) + "\n" for line in lines), "utf-8")
