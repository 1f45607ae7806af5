"""A teacher by what names it: a model, a file of vectors, or the address of a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asterisk.common.errors import MissingExtra, UsageError
from asterisk.training.corpora.corpus import Corpus
from asterisk.training.teachers.blackbox import Vectors
from asterisk.training.teachers.endpoint import Budget, Endpoint
from asterisk.training.teachers.teacher import LONGEST, Teacher, find
from asterisk.training.teachers.vector_files import JsonLines, Rows

RECORDS = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user says of the teacher.

    ``name`` is a packaged model, its folder, a .npy of the training texts with ``held_out``
    for the others, a .jsonl, or an http address. ``engine``, ``longest`` and ``threads`` are for
    models, the rest for addresses. ``own_tokens``: the student shares the model's tokenizer.
    """

    name: str
    held_out: Path | None = None
    engine: str | None = None
    longest: int | None = LONGEST
    threads: int = 1
    model: str | None = None
    batch: int = 64
    dimensions: int | None = None
    per_minute: int | None = None
    budget_texts: int | None = None
    budget_tokens: int | None = None
    own_tokens: bool = False


def is_address(name: str) -> bool:
    """Tell whether a teacher is a service."""
    return name.partition("://")[0] in ("http", "https")


def open_teachers(
    choice: Choice, parts: Mapping[str, Corpus], tell: Callable[[str], None] = lambda line: None
) -> dict[str, Vectors]:
    """Open the teacher of each part, often one and the same; UsageError for what does not fit."""
    if choice.own_tokens:
        return dict.fromkeys(parts, _own_tokens(choice))
    name, ending = choice.name, Path(choice.name).suffix
    rows = ending == ".npy" and not is_address(name)
    if choice.held_out is not None and not rows:
        raise UsageError("--held-out-vectors goes with a --teacher that is .npy")
    if choice.model is not None and not is_address(name):
        raise UsageError("--model goes with a --teacher that is an address")
    if is_address(name):
        return dict.fromkeys(parts, _endpoint(choice, tell))
    if rows:
        if choice.held_out is None and len(parts["held-out"]):
            raise UsageError("--held-out-vectors is needed: the held-out texts' vectors as .npy")
        paths = {"train": Path(name), "held-out": choice.held_out}
        opened: dict[str, Vectors] = {
            part: Rows(path, len(parts[part])) for part, path in paths.items() if path is not None
        }
        if len({one.size for one in opened.values()}) > 1:
            raise UsageError("the two files of vectors differ in their dimensions")
        return {"held-out": opened["train"], **opened}
    if ending in RECORDS:
        return dict.fromkeys(parts, JsonLines(Path(name)))
    return dict.fromkeys(
        parts,
        Teacher(find(name), engine=choice.engine, longest=choice.longest, threads=choice.threads),
    )


def _own_tokens(choice: Choice) -> Vectors:
    if is_address(choice.name) or Path(choice.name).suffix in (".npy", *RECORDS):
        raise UsageError("--tokenizer teacher needs a --teacher that is a model")
    try:
        from asterisk.training.teachers.own_tokens import OwnTokens
    except ImportError as missing:
        raise MissingExtra(missing.name or "torch", "train") from None
    return OwnTokens(find(choice.name), engine=choice.engine, longest=choice.longest or LONGEST)


def _endpoint(choice: Choice, tell: Callable[[str], None]) -> Endpoint:
    if choice.model is None:
        raise UsageError("--model is needed: the name that the service knows the model by")
    return Endpoint(
        choice.name,
        choice.model,
        batch=choice.batch,
        at_once=choice.threads,
        dimensions=choice.dimensions,
        per_minute=choice.per_minute,
        budget=Budget(choice.budget_texts, choice.budget_tokens),
        tell=tell,
    )
