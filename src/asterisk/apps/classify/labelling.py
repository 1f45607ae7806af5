"""Texts in, a label and its probability a line out, in blocks, so that any length streams."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.apps.classify.head import Floats, Head
from asterisk.common.output import open_output as written
from asterisk.common.terminal import Bar
from asterisk.common.text_files import Record
from asterisk.common.text_files import filter_empty as kept
from asterisk.runtimes.records import encode_records as embedded
from asterisk.runtimes.runtime import OnLong, Runtime

BLOCK = 64  # texts
_SPACES = str.maketrans(dict.fromkeys("\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


@dataclass(frozen=True, slots=True)
class Rules:
    """``format`` tsv or jsonl, ``top`` labels a text, and what becomes of long and empty texts.

    ``prompt_name`` names the model's prompt before each text, None its default one.
    """

    format: str = "tsv"
    top: int = 1
    on_long: OnLong = "truncate"
    on_empty: str = "error"
    prompt_name: str | None = None


def label(
    runtime: Runtime,
    head: Head,
    records: Iterator[Record],
    rules: Rules,
    out: Path | None,
    *,
    total: int | Callable[[], int] = 0,
) -> None:
    """Write a line for each record to ``out``, whole or not at all, or to standard output.

    ``total`` is how many records there are, for the progress bar; 0 is unknown.
    """
    with written(out) as file, Bar(total, "texts") as bar:
        index = 0
        while block := list(itertools.islice(kept(records, rules.on_empty), BLOCK)):
            full = [record for record in block if record.text.strip()]
            vectors = embedded(
                runtime, full, rules.prompt_name, rules.on_long, dim=head.dim, normalize=True
            )
            shares = iter(head.probabilities(vectors))
            for record in block:
                found = next(shares) if record.text.strip() else None
                file.write(_line(head, record, found, rules, index).encode("utf-8", "replace"))
                index += 1
            bar.advance(len(block))
        file.flush()


def _line(head: Head, record: Record, shares: Floats | None, rules: Rules, index: int) -> str:
    best = [] if shares is None else np.argsort(-shares, kind="stable")[: rules.top].tolist()
    if rules.format == "tsv":
        # A line break or a tab inside a text would make another row or column of it.
        text = record.text.translate(_SPACES)
        if shares is None:
            return f"\t\t{text}\n"
        return f"{head.labels[best[0]]}\t{shares[best[0]]:.4f}\t{text}\n"
    values: dict[str, Any] = {"index": index}
    if record.id is not None:
        values["id"] = record.id
    values |= {"label": None, "probability": None}
    if shares is not None:
        ranked = [(head.labels[place], round(float(shares[place]), 6)) for place in best]
        values["label"], values["probability"] = ranked[0]
        if rules.top > 1:
            values["top"] = [{"label": name, "probability": share} for name, share in ranked]
    return json.dumps(values | {"text": record.text}) + "\n"
