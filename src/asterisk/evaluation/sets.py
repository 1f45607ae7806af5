"""Evaluation sets as folders of TSV files; what kind a set is, is read from its files.

::

    SET/{train,dev,test}.tsv    score<TAB>text<TAB>text    pairs (scores 0 and 1 alone: paraphrase)
                                label<TAB>text             classification; without train: clusters
    SET/{corpus,queries,qrels}.tsv                         retrieval; queries_X with qrels_X beside
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asterisk.common.errors import InputError, UnknownName, UsageError
from asterisk.common.text_files import lines

Split = Literal["dev", "test"]
DEV_IN = 10
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of texts with a score each; ``graded`` unless every score is 0 or 1."""

    name: str
    first: list[str]
    second: list[str]
    scores: list[float]
    graded: bool

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with a label each; ``train`` is empty where there is nothing to learn from."""

    name: str
    texts: list[str]
    labels: list[str]
    train: list[str]
    train_labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries, documents, and for each query the gain of its relevant documents by position."""

    name: str
    queries: list[str]
    documents: list[str]
    relevant: list[dict[int, float]]

    def __len__(self) -> int:
        return len(self.queries)


EvaluationSet = Pairs | Labelled | Retrieval


@dataclass(slots=True)
class Found:
    """What a folder had for a split, and a line for what it had not."""

    sets: list[EvaluationSet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def folders(data: Sequence[Path], wanted: Sequence[str] = ()) -> list[Path]:
    """Return the folders of the sets under each of ``data``, all or those ``wanted`` by name.

    UnknownName if one is nowhere, UsageError if two have one name, InputError if nothing is there.
    """
    found: dict[str, Path] = {}
    for root in data:
        if not root.is_dir():
            raise InputError(f"{root} is not a folder of evaluation sets")
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            if not wanted or path.name in wanted:
                other = found.setdefault(path.name, path)
                if other is not path:
                    raise UsageError(f"two sets are named {path.name}: {other} and {path}")
    roots = ", ".join(map(str, data))
    for name in wanted:
        if name not in found:
            raise UnknownName(f"no set named {name!r} in {roots}")
    if not found:
        raise InputError(f"{roots}: no evaluation sets")
    return list(found.values())


def load(folder: Path, split: Split) -> Found:
    """Read what ``folder`` has for ``split``; InputError for an unknown layout or a damaged line.

    Without a ``dev.tsv``, a hashed tenth of the train split is the dev split and leaves train.
    """
    if (folder / "corpus.tsv").is_file():
        return _retrieval(folder, split)
    files = {name: folder / f"{name}.tsv" for name in ("train", "dev", "test")}
    files = {name: path for name, path in files.items() if path.is_file()}
    if not files:
        raise InputError(f"{folder}: unknown layout, neither corpus.tsv nor train, dev or test.tsv")
    first = next(iter(files.values()))
    width = next(lines(first), ("", ""))[1].count("\t") + 1
    if width not in (2, 3):
        raise InputError(f"{first}: unknown layout, {width} columns where 2 or 3 are known")
    parts = {name: read(path, width) for name, path in files.items()}
    train, rows = parts.get("train", []), parts.get(split, [])
    if split == "dev" and not rows:
        rows = [row for row in train if in_dev(row)]
        train = [row for row in train if not in_dev(row)]
    if not rows:
        return Found(notes=[f"{folder.name} has no {split} split"])
    columns = [list(column) for column in zip(*rows, strict=True)]
    if width == 2:
        labels, texts = columns
        learnt = [row[1] for row in train], [row[0] for row in train]
        return Found([Labelled(folder.name, texts, labels, *learnt)])
    try:
        scores = [float(score) for score in columns[0]]
    except ValueError:
        raise InputError(f"{folder}: unknown layout, a pair's first column is no number") from None
    graded = not set(scores) <= {0.0, 1.0}
    return Found([Pairs(folder.name, columns[1], columns[2], scores, graded)])


def in_dev(row: Row) -> bool:
    """Tell whether a train row belongs to the fixed tenth that serves as dev split."""
    digest = hashlib.blake2b("\t".join(row[1:]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % DEV_IN == 0


def read(path: Path, width: int) -> list[Row]:
    """Read a TSV of ``width`` columns, none empty; InputError names the line that is not."""
    rows = []
    for position, line in lines(path):
        row = tuple(line.split("\t"))
        if len(row) != width or not all(map(str.strip, row)):
            raise InputError(f"{position}: not {width} columns with text in each")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty")
    return rows


def _retrieval(folder: Path, split: Split) -> Found:
    is_dev = any("dev" in re.split(r"[_\-.]", name) for name in (folder.name, folder.parent.name))
    if is_dev != (split == "dev"):
        return Found(notes=[f"{folder.name} is a {'dev' if is_dev else 'test'} set"])
    positions, documents = _by_id(folder / "corpus.tsv")
    found = Found()
    for path in sorted(folder.glob("queries*.tsv")):
        suffix = path.stem.removeprefix("queries")
        qrels = folder / f"qrels{suffix}.tsv"
        if not qrels.is_file():
            raise InputError(f"{folder}: unknown layout, {path.name} without {qrels.name}")
        numbers, queries = _by_id(path)
        relevant: list[dict[int, float]] = [{} for _ in queries]
        for query, document, relevance in read(qrels, 3):
            try:
                if (gain := float(relevance)) > 0:
                    relevant[numbers[query]][positions[document]] = gain
            except (KeyError, ValueError):
                raise InputError(
                    f"{qrels}: {query} {document} {relevance} is no judgement of a query and "
                    "a document in these files"
                ) from None
        judged = [(text, gains) for text, gains in zip(queries, relevant, strict=True) if gains]
        if not judged:
            raise InputError(f"{qrels}: no query has a relevant document")
        texts, gains_of_each = map(list, zip(*judged, strict=True))
        name = folder.name + suffix.replace("_", ":", 1)
        found.sets.append(Retrieval(name, texts, documents, gains_of_each))
    if not found.sets:
        raise InputError(f"{folder}: unknown layout, corpus.tsv without queries.tsv")
    return found


def _by_id(path: Path) -> tuple[dict[str, int], list[str]]:
    rows = read(path, 2)
    positions = {row[0]: index for index, row in enumerate(rows)}
    if len(positions) != len(rows):
        raise InputError(f"{path}: an id occurs twice")
    return positions, [row[1] for row in rows]
