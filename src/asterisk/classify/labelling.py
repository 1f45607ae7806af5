"""Texts in, a label and its probability a line out, in blocks, so that any length streams."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asterisk.classify.head import Floats, Head
from asterisk.errors import InputError, OutputError
from asterisk.files import replacing_file
from asterisk.progress import Bar
from asterisk.runtimes.runtime import OnLong, Runtime
from asterisk.streams.reading import Record, kept

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
    with _opened(out) as file, Bar(total, "texts") as bar:
        index = 0
        while block := list(itertools.islice(kept(records, rules.on_empty), BLOCK)):
            full = [record for record in block if record.text.strip()]
            vectors = embed(
                runtime,
                [record.text for record in full],
                [record.place for record in full],
                head.dim,
                rules.on_long,
                prompt_name=rules.prompt_name,
            )
            shares = iter(head.probabilities(vectors))
            for record in block:
                found = next(shares) if record.text.strip() else None
                file.write(_line(head, record, found, rules, index).encode("utf-8", "replace"))
                index += 1
            bar.advance(len(block))
        file.flush()


def embed(
    runtime: Runtime,
    texts: Sequence[str],
    places: Sequence[str],
    dim: int | None,
    on_long: OnLong,
    *,
    prompt_name: str | None = None,
    show_progress: bool = False,
) -> Floats:
    """Embed ``texts`` as unit vectors, float32 [n, dim], what a head is trained on.

    InputError names the place of one that is refused.
    """
    try:
        return runtime.encode(
            texts,
            prompt_name=prompt_name,
            dim=dim,
            normalize=True,
            on_long=on_long,
            show_progress=show_progress,
        )
    except InputError as failure:
        prompt = runtime.prompt(prompt_name)
        for text, place in zip(texts, places, strict=True):
            try:
                runtime.tokenize(prompt + text, on_long)
            except InputError:
                raise InputError(f"{place}: {failure}") from None
        raise


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


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield sys.stdout.buffer
        return
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: no such folder")
    with replacing_file(out) as staging, staging.open("wb") as file:
        yield file
