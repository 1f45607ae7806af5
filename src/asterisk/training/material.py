"""What a run learns from: a corpus, a teacher's targets for it, and which texts are whose."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, InputError
from asterisk.model.hub import PACKAGED
from asterisk.tokenizer import gpt2
from asterisk.training import pruning
from asterisk.training.batches import Targets
from asterisk.training.caseless import fold
from asterisk.training.corpora.corpus import Corpus, describe
from asterisk.training.distil import EVALUATED
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.teachers.target_facts import FILE, corpus_digest
from asterisk.training.teachers.targets import SHARD, read_projection

Array = npt.NDArray[np.float32]
PATIENCE = 3_600.0  # seconds without a new shard after which a teacher is given up


@dataclass(frozen=True, slots=True)
class Told:
    """What the targets say of their teacher.

    ``limit`` is the tokens a text was cut to; ``identity`` what the teacher's vectors depend on,
    ``corpus`` the SHA-256 of the texts, None each where the targets do not say. ``own_tokens``:
    the student has the teacher's tokenizer, and its states are kept as they are.
    """

    teacher: str
    limit: int
    uncased: bool
    identity: dict[str, Any] | None = None
    corpus: str | None = None
    own_tokens: bool = False

    @classmethod
    def open(cls, folder: Path, teacher: str | None = None) -> Told:
        """Read ``targets.json``; a ``teacher`` given goes before the name in it."""
        path = folder / FILE
        try:
            told: Any = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            name = teacher or told.get("teacher")
            if name is None:
                raise ArtifactError(f"{path} is missing; name the teacher with --teacher")
            return cls(
                str(name),
                int(told.get("limit", 512)),
                bool(told.get("uncased", name in PACKAGED)),
                told.get("identity"),
                told.get("corpus", {}).get("train"),
                told.get("tokenizer") == "teacher",
            )
        except (ValueError, TypeError, AttributeError):
            raise ArtifactError(f"{path} does not describe targets") from None

    @property
    def longest(self) -> int:
        """The tokens of a text that targets in the teacher's tokens are of."""
        return int((self.identity or {}).get("longest", self.limit))

    @property
    def spaces(self) -> tuple[str, ...]:
        """The fingerprint of the teacher's embedding space, where it is known."""
        found = (self.identity or {}).get("fingerprint")
        return () if found is None else (str(found),)


@dataclass(frozen=True, slots=True)
class Material:
    """Texts to train on and texts to look at.

    ``looked_at`` are indices into ``held_out``; ``pairs`` int64 [m, 2] into ``train``;
    ``projection`` float32 [d, D] from the teacher's space to the student's, None where that is the
    same; ``sources`` name what the corpus was made of.
    """

    train: Targets
    held_out: Targets
    apart: Targets
    looked_at: range
    pairs: npt.NDArray[np.int64]
    projection: npt.NDArray[np.float32] | None
    sources: list[str]
    told: Told
    recipe: TrainingRecipe


def open_material(
    corpus: Path,
    targets: Path,
    recipe: TrainingRecipe,
    *,
    told: Told | None = None,
    texts: int | None = None,
    follow: bool = False,
    axes: Array | int | None = None,
) -> Material:
    """Open the first ``texts`` texts, in whole shards, and settle what the recipe left open.

    Targets in the teacher's tokens are seen along ``axes``, float32 [d, D], or so many of its own.
    ``follow`` waits for shards that are not there yet. ArtifactError for targets that are
    damaged or of another corpus, InputError for a corpus without what the recipe needs.
    """
    known, held = Corpus.open(corpus), Corpus.open(corpus, "held-out")
    told = told or Told.open(targets)
    if told.corpus is not None and told.corpus != corpus_digest(corpus / "train"):
        raise ArtifactError(f"{targets} was made from another corpus than {corpus}")
    if not len(held):
        raise InputError(f"{corpus} has no held-out texts: nothing would tell how training goes")
    folded = recipe.fold_case and told.uncased and not told.own_tokens
    recipe = replace(recipe, fold_case=folded)
    tokenizer = gpt2()
    twins = fold(tokenizer, tokenizer.vocab_size) if recipe.fold_case else None
    patience = PATIENCE if follow else 0.0
    projection: Array | None
    if not told.own_tokens:
        projection = read_projection(targets / "projection.npy")
    elif isinstance(axes, int):
        wide = Targets(targets / "train", len(known), None, None, patience)
        projection = pruning.axes(wide, axes)
    else:
        projection = axes

    def some(part: str, count: int) -> Targets:
        return Targets(targets / part, count, projection, twins, patience, as_read=told.own_tokens)

    in_use = min(len(known), -(-texts // SHARD) * SHARD) if texts else len(known)
    cut = in_use - round(recipe.validation * in_use)
    pairs = np.asarray(known.pairs)
    pairs = pairs[(pairs < cut).all(1)]
    if recipe.pair_weight and len(pairs) < recipe.pairs:
        raise InputError(
            f"{len(pairs)} pairs are among the texts in use: too few for a batch of {recipe.pairs}"
        )
    only_pairs = recipe.pair_weight and recipe.pair_every == 1
    if recipe.epochs:
        passes = recipe.epochs * (2 * len(pairs) if only_pairs else cut)
        recipe = replace(recipe, passes=passes, epochs=0)
    apart = some("held-out", len(held))
    looked_at = range(min(EVALUATED, len(held)))
    if recipe.validation:
        looked_at = range(cut, min(cut + EVALUATED, in_use))
    return Material(
        train=some("train", cut),
        held_out=some("train", in_use) if recipe.validation else apart,
        apart=apart,
        looked_at=looked_at,
        pairs=pairs,
        projection=projection,
        sources=list(describe(corpus)["sources"]),
        told=told,
        recipe=recipe,
    )
