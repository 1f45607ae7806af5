"""Labelled texts read, ``label<TAB>text`` a line, a head scored on them, and texts labelled."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asterisk.apps.classify.head import Head, check_label
from asterisk.common.digest import sha256
from asterisk.common.errors import InputError
from asterisk.common.terminal import Bar
from asterisk.common.text_files import Record, filter_empty, open_output, read_records
from asterisk.runtimes.runtime import Runtime, encode_records

if TYPE_CHECKING:
    from asterisk.evaluation.logistic_regression import Floats
    from asterisk.runtimes.runtime import OnLong


BLOCK = 64  # texts
_SPACES = str.maketrans(dict.fromkeys("\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with their positions, and the label of each."""

    records: list[Record]
    labels: list[str]

    @property
    def texts(self) -> list[str]:
        """The texts alone."""
        return [record.text for record in self.records]


def load(path: Path) -> Labelled:
    """Read a file in UTF-8, or standard input for ``-``.

    A text may hold further tabs; blank lines are skipped. InputError names a line without a tab or
    a text, or with a label that `check_label` refuses.
    """
    given = Labelled([], [])
    for record in read_records([path], json_lines=False, field=""):
        label, tab, text = record.text.partition("\t")
        try:
            if record.text.strip():
                if not tab:
                    raise InputError("no tab between label and text")
                if not text.strip():
                    raise InputError("empty text")
                given.labels.append(check_label(label.strip()))
                given.records.append(Record(text, record.position))
        except InputError as failure:
            raise InputError(f"{record.position}: {failure}") from None
    if not given.labels:
        raise InputError(f"{path}: no labelled texts")
    return given


def held_out(given: Labelled, share: int) -> tuple[list[int], list[int]]:
    """Split the texts by their hash: the numbers of those to train on, and of one in ``share``.

    A text is on the same side in every file and every run. InputError if a side is empty.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for number, text in enumerate(given.texts):
        digest = sha256()
        digest.update(text.encode("utf-8", "replace"))
        sides[digest.digest()[0] % share == 0].append(number)
    if not all(sides):
        raise InputError("too few texts to hold some out: name others by --dev")
    return sides


@dataclass(frozen=True, slots=True)
class Score:
    """How well a head labels texts."""

    texts: int
    accuracy: float
    macro_f1: float  # over the labels that are true or predicted
    unknown: int  # texts whose label the head does not have; they are wrong


def score(head: Head, vectors: Floats, labels: Sequence[str]) -> Score:
    """Compare the head's predictions for float32 [n, dim] with the n true ``labels``."""
    if not len(labels) or len(labels) != len(vectors):
        raise InputError("scoring needs a vector for every label, and one at least")
    predicted = np.array(head.predict(vectors), dtype=object)
    true = np.array(labels, dtype=object)
    shares = []
    for label in sorted({*predicted, *true}):
        found, wanted = predicted == label, true == label
        shares.append(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))
    unknown = sum(label not in head.labels for label in labels)
    accuracy = float(np.mean(predicted == true))
    return Score(len(labels), accuracy, float(np.mean(shares)), unknown)


def label(
    runtime: Runtime,
    head: Head,
    records: Iterator[Record],
    out: Path | None,
    format: str,
    *,
    top: int = 1,
    on_long: OnLong = "truncate",
    on_empty: str = "error",
    prompt_name: str | None = None,
    total: int | Callable[[], int] = 0,
) -> None:
    """Write a line for each record to ``out``, whole or not at all, or to standard output.

    ``format`` is "tsv", or "jsonl" with ``top`` labels a text; ``total`` is how many records there
    are, for the progress bar, 0 if unknown.
    """
    with open_output(out) as file, Bar(total, "texts") as bar:
        numbered = enumerate(filter_empty(records, on_empty))
        while block := list(itertools.islice(numbered, BLOCK)):
            full = [record for _, record in block if record.text.strip()]
            vectors = encode_records(
                runtime, full, prompt_name, on_long, dim=head.dim, normalize=True
            )
            shares = iter(head.probabilities(vectors))
            for index, record in block:
                ranked = []
                if record.text.strip():
                    found = next(shares)
                    best = np.argsort(-found, kind="stable")[:top].tolist()
                    ranked = [(head.labels[number], float(found[number])) for number in best]
                line = _line(record, ranked, index, None if format == "tsv" else top)
                file.write(line.encode("utf-8", "replace"))
            bar.advance(len(block))
        file.flush()


def _line(record: Record, ranked: list[tuple[str, float]], index: int, top: int | None) -> str:
    """Return a JSON object with ``top`` labels; None: a table's row."""
    if top is None:
        # A line break or a tab inside a text would make another row or column of it.
        text = record.text.translate(_SPACES)
        return f"{ranked[0][0]}\t{ranked[0][1]:.4f}\t{text}\n" if ranked else f"\t\t{text}\n"
    values: dict[str, Any] = {"index": index}
    if record.id is not None:
        values["id"] = record.id
    labels = [{"label": name, "probability": round(share, 6)} for name, share in ranked]
    values |= labels[0] if labels else {"label": None, "probability": None}
    if labels and top > 1:
        values["top"] = labels
    return json.dumps(values | {"text": record.text}) + "\n"
