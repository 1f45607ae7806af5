"""From a corpus and a teacher to targets: claim the folder, project, fill in what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from asterisk.common.errors import ArtifactError, InputError
from asterisk.tokenizer import gpt2
from asterisk.training.corpora.corpus import PARTS, Corpus
from asterisk.training.teachers import targets
from asterisk.training.teachers.blackbox import BudgetSpent, TokenStates, Vectors
from asterisk.training.teachers.target_facts import claim, facts

Progress = Callable[[str, int, int], None]


def teach(
    corpus: Path,
    out: Path,
    name: str,
    teachers: Mapping[str, Vectors],
    *,
    limit: int,
    size: int,
    tokens: bool,
    own_tokens: bool = False,
    progress: Progress = lambda part, done, total: None,
) -> None:
    """Make the targets of both parts of ``corpus`` under ``out``, as far as they are missing.

    ``teachers`` are by part, ``name`` is what the user calls them. With ``own_tokens``, the student
    has the teacher's tokenizer, and ``size`` counts for nothing. InputError for a corpus too small
    for ``size`` dimensions, ArtifactError for a folder begun with something else, BudgetSpent, with
    all that is done in its place, where a service's budget ends.
    """
    parts = {part: Corpus.open(corpus, part) for part in PARTS}
    teacher = teachers["train"]
    if own_tokens:
        size = teacher.size
    if size > teacher.size:
        raise InputError(f"{name} has {teacher.size} dimensions: --size {teacher.size} at most")
    if not own_tokens and len(parts["train"]) < size:
        raise InputError(f"{corpus} has fewer texts than the student has dimensions, {size}")
    ours = facts(
        name,
        teacher,
        corpus,
        limit=limit,
        size=size,
        tokens=tokens,
        tokenizer="teacher" if own_tokens else "gpt2",
    )
    claim(out, ours, teachers, corpus)
    path, train = out / "projection.npy", parts["train"]

    def asking(some: Vectors) -> targets.Ask:
        if own_tokens and isinstance(some, TokenStates):
            return targets.in_own_tokens(some)
        if ours.tokens and isinstance(some, TokenStates):
            return targets.aligned(some, gpt2(), targets.read_projection(path), limit)
        return targets.sentences_alone(some, gpt2(), limit)

    def build(part: str, shards: int | None = None) -> None:
        targets.build(
            out / part,
            parts[part],
            asking(teachers[part]),
            shards=shards,
            progress=lambda done, total: progress(part, done, total),
        )

    try:
        if not own_tokens:
            if ours.tokens:
                found = targets.projection(path, teacher, train, size)
            else:
                build("train", shards=-(-targets.PROJECTION_TEXTS // targets.SHARD))
                found = targets.projection_of_shards(path, out / "train", len(train), size)
            if found.shape != (size, teacher.size):
                raise ArtifactError(f"{path} is {found.shape}, not {(size, teacher.size)}")
        build("held-out")
        build("train")
    except BudgetSpent as spent:
        done = sum(1 for part in PARTS for _ in (out / part).glob("shard-*"))
        total = sum(-(-len(texts) // targets.SHARD) for texts in parts.values())
        raise BudgetSpent(
            f"{spent}: {done} of {total} shards are done; run the same command again to go on"
        ) from None
