"""What a run learns from: texts and their targets, in an endless, repeatable order of batches."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asterisk.common.errors import ArtifactError, InputError
from asterisk.tokenizer import ByteLevelBPE, gpt2
from asterisk.training.corpora.corpus import Corpus
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.teachers.targets import (
    SHARD,
    Shard,
    TargetsInfo,
    corpus_digest,
    principal_axes,
    read_projection,
    shard_folder,
)
from asterisk.training.teachers.teacher import by_length

EVALUATED = 1_000  # held-out texts
PATIENCE = 3_600.0  # seconds that a run waits for a teacher's next shard
TOKEN_SHARE = 0.1  # weight of token states beside sentence vectors, where axes are fitted
AXES_SHARDS = 2
Indices = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """B texts padded to T tokens, d dimensions."""

    ids: Tensor  # int64 [B, T]
    mask: Tensor  # bool [B, T]
    sentences: Tensor  # float32 [B, d], L2-normalised
    tokens: Tensor  # float32 [B, T, d]
    asked: Tensor  # bool [B, T], tokens that have a target
    paired: bool = False  # row i of the first half means the same as row i of the second

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Batch:
        """Return this batch on ``device``."""
        tensors = (self.ids, self.mask, self.sentences, self.tokens, self.asked)
        ids, mask, sentences, tokens, asked = (tensor.to(device) for tensor in tensors)
        return Batch(ids, mask, sentences, tokens, asked, self.paired)


class Targets:
    """The first ``texts`` texts in the shards of ``folder``, as one indexed collection.

    ``projection`` float32 [d, D] maps the teacher's vectors into the student's space; with
    ``as_read`` it maps token states, too. ``fold`` int64 [vocabulary] renames tokens. A missing
    shard is waited for, ``patience`` seconds at most; then ArtifactError.
    """

    def __init__(
        self,
        folder: Path,
        texts: int,
        projection: Array | None,
        fold: Indices | None = None,
        patience: float = 0.0,
        *,
        as_read: bool = False,
    ) -> None:
        self._folder, self._texts, self._patience = folder, texts, patience
        self._projection = None if projection is None else torch.from_numpy(projection)
        self.fold = fold
        self._token_projection = self._projection if as_read else None
        self._shards: list[Shard] = []

    def __len__(self) -> int:
        return self._texts

    def first(self, texts: int) -> Targets:
        """Return the first ``texts`` texts alone."""
        part = copy(self)
        part._texts = min(texts, self._texts)
        return part

    @property
    def shards(self) -> int:
        """How many shards the texts take."""
        return -(-self._texts // SHARD)

    def shard(self, number: int) -> Shard:
        """Return shard ``number``, once it exists."""
        while len(self._shards) <= number:
            folder = shard_folder(self._folder, len(self._shards))
            deadline = time.monotonic() + self._patience
            while not folder.is_dir():
                if time.monotonic() >= deadline:
                    raise ArtifactError(f"{folder} is missing: run asterisk-teacher to its end")
                time.sleep(0.5)
            shard = Shard.open(folder)
            if len(shard.ends) < min(SHARD, self._texts - len(self._shards) * SHARD):
                raise ArtifactError(f"{folder} holds too few texts: targets of another corpus?")
            self._shards.append(shard)
        return self._shards[number]

    def ids(self, number: int) -> Indices:
        """Return the token ids of shard ``number``, renamed, int64 [N]."""
        ids = self.shard(number).ids.astype("i8")
        return (ids if self.fold is None else self.fold[ids])[: self.lengths(number).sum()]

    def lengths(self, number: int) -> Indices:
        """Return how many tokens each text in use of shard ``number`` has."""
        return np.diff(self.shard(number).ends, prepend=0)[: self._texts - number * SHARD]

    def all_lengths(self) -> Indices:
        """Return how many tokens each text has."""
        return np.concatenate([self.lengths(number) for number in range(self.shards)])

    def sentences(self, number: int) -> Array:
        """Return the sentence vectors of shard ``number``, float32 [n, d], L2-normalised."""
        wide = self.shard(number).sentences[: len(self.lengths(number))]
        vectors: Array = self._projected(np.asarray(wide, "f4")).numpy()
        return vectors

    def sentences_of(self, indices: Sequence[int]) -> Tensor:
        """Return the sentence vectors of texts, float32 [n, d], L2-normalised."""
        positions = [divmod(index, SHARD) for index in indices]
        wide = np.array([self.shard(number).sentences[row] for number, row in positions], "f4")
        return self._projected(wide.reshape(len(positions), self.shard(0).sentences.shape[1]))

    def states(self, number: int) -> Array:
        """Return the token targets of shard ``number`` as they are stored, float32 [N, D]."""
        shard = self.shard(number)
        if shard.tokens is None or shard.scales is None:
            raise ArtifactError(f"{self._folder} holds no targets for tokens")
        states: Array = shard.tokens * shard.scales[:, None]
        return states

    def _projected(self, wide: Array) -> Tensor:
        vectors = torch.from_numpy(wide)
        if self._projection is not None:
            vectors = vectors @ self._projection.T
        return torch.nn.functional.normalize(vectors, dim=-1)

    @property
    def dimensions(self) -> int:
        """Dimensions of the student's vectors."""
        if self._projection is not None:
            return len(self._projection)
        return int(self.shard(0).sentences.shape[1])

    @property
    def token_dimensions(self) -> int:
        """Dimensions of the token targets; 0 where there are none."""
        if (tokens := self.shard(0).tokens) is None:
            return 0
        return tokens.shape[1] if self._token_projection is None else self.dimensions

    def gather(self, indices: Sequence[int], *, paired: bool = False) -> Batch:
        """Read the texts at ``indices`` and pad them to the longest."""
        ids, tokens, scales = [], [], []
        for number, row in (divmod(index, SHARD) for index in indices):
            shard = self.shard(number)
            span = slice(int(shard.ends[row - 1]) if row else 0, int(shard.ends[row]))
            ids.append(shard.ids[span].astype("i8"))
            if shard.tokens is not None and shard.scales is not None:
                tokens.append(shard.tokens[span])
                scales.append(shard.scales[span])
        padded, mask = _padded(ids), _padded([np.ones(len(some), bool) for some in ids])
        if tokens:
            scale = _padded(scales)
            states, asked = _padded(tokens).float() * scale[..., None], scale > 0
            if self._token_projection is not None:
                states = states @ self._token_projection.T
        else:
            states, asked = torch.zeros(*mask.shape, self.dimensions), torch.zeros_like(mask)
        if self.fold is not None:
            padded = torch.from_numpy(self.fold)[padded]
        return Batch(padded, mask, self.sentences_of(indices), states, asked, paired)


def _padded(rows: Sequence[npt.NDArray[Any]]) -> Tensor:
    return pad_sequence([torch.from_numpy(np.array(row)) for row in rows], batch_first=True)


def plan(targets: Targets, batch_tokens: int, seed: int, replay: int = 0) -> Iterator[list[int]]:
    """Yield batches of indices for ever: texts of like length together, in random order.

    The first epoch takes the shards as they come, and after each repeats those ``replay``, 1.5
    ``replay`` and so on before it, if not 0. Later epochs mix all shards.
    """
    for new in range(targets.shards):
        repeated = range(new - replay, -1, -max(replay // 2, 1)) if replay else ()
        for number in (new, *repeated):
            seeds = (seed, 0, new) if number == new else (seed, 0, new, number)
            lengths = targets.lengths(number)
            pool = np.arange(len(lengths)) + number * SHARD
            yield from _batches(pool, lengths, batch_tokens, np.random.default_rng(seeds))
    lengths = targets.all_lengths()
    for epoch in itertools.count(1):
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(lengths))
        for start in range(0, len(order), SHARD):
            pool = order[start : start + SHARD]
            yield from _batches(pool, lengths[pool], batch_tokens, random)


def _batches(
    pool: Indices, lengths: Indices, batch_tokens: int, random: np.random.Generator
) -> Iterator[list[int]]:
    batches = by_length(lengths, batch_tokens)
    for index in random.permutation(len(batches)):
        yield pool[batches[index]].tolist()


def plan_pairs(pairs: Indices, size: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of ``size`` random pairs for ever: all first texts, then all second ones."""
    for epoch in itertools.count():
        order = np.random.default_rng((seed, 1, epoch)).permutation(len(pairs))
        for start in range(0, len(order) - size + 1, size):
            yield pairs[order[start : start + size]].T.ravel().tolist()


@dataclass(frozen=True, slots=True)
class Material:
    """The texts of a run, and its recipe with nothing left open."""

    train: Targets
    validation: Targets
    evaluated: range  # of the validation's texts
    held_out: Targets  # the corpus's own held-out part
    pairs: Indices  # [m, 2], into `train`
    projection: Array | None  # [d, D], from the teacher's space, None if the student is in it
    sources: Sequence[str]
    info: TargetsInfo
    recipe: TrainingRecipe


def open_material(
    corpus: Path,
    targets: Path,
    recipe: TrainingRecipe,
    *,
    info: TargetsInfo | None = None,
    texts: int | None = None,
    follow: bool = False,
    axes: Array | int | None = None,
) -> Material:
    """Open the first ``texts`` texts, in whole shards, and settle what the recipe left open.

    Targets in the teacher's tokens are projected to ``axes``, float32 [d, D], or to so many of
    their own. ArtifactError for targets of another corpus, InputError for one that is too small.
    """
    train, held = Corpus.open(corpus), Corpus.open(corpus, "held-out")
    info = info or TargetsInfo.open(targets)
    if info.corpus is not None and info.corpus != corpus_digest(corpus / "train"):
        raise ArtifactError(f"{targets} was made from another corpus than {corpus}")
    if not len(held):
        raise InputError(f"{corpus} has no held-out texts: nothing would tell how training goes")
    fold_case = recipe.fold_case and info.uncased and not info.own_tokens
    recipe = replace(recipe, fold_case=fold_case)
    twins = lowercase_twins(gpt2()) if fold_case else None
    patience = PATIENCE if follow else 0.0
    if not info.own_tokens:
        projection: Array | None = read_projection(targets / "projection.npy")
    elif isinstance(axes, int):
        projection = fit_axes(Targets(targets / "train", len(train), None, None, patience), axes)
    else:
        projection = axes

    def part(name: str, count: int) -> Targets:
        how = (projection, twins, patience)
        return Targets(targets / name, count, *how, as_read=info.own_tokens)

    in_use = min(len(train), -(-texts // SHARD) * SHARD) if texts else len(train)
    cut = in_use - round(recipe.validation * in_use)
    pairs = np.asarray(train.pairs)
    pairs = pairs[(pairs < cut).all(1)]
    if recipe.pair_weight and len(pairs) < recipe.pairs:
        many = f"{len(pairs)} pairs are among the texts in use"
        raise InputError(f"{many}: too few for a batch of {recipe.pairs}")
    if recipe.epochs:
        only_pairs = recipe.pair_weight and recipe.pair_every == 1
        passes = recipe.epochs * (2 * len(pairs) if only_pairs else cut)
        recipe = replace(recipe, passes=passes, epochs=0)
    held_out = part("held-out", len(held))
    validation, evaluated = held_out, range(min(EVALUATED, len(held)))
    if recipe.validation:
        validation = part("train", in_use)
        evaluated = range(cut, min(cut + EVALUATED, in_use)) or range(min(EVALUATED, in_use))
    first, names = part("train", cut), train.names
    return Material(
        first, validation, evaluated, held_out, pairs, projection, names, info=info, recipe=recipe
    )


def lowercase_twins(tokenizer: ByteLevelBPE) -> Indices:
    """Return each token's lower-case twin, or itself, int64 [vocabulary]."""
    twins = np.arange(tokenizer.vocab_size)
    tokens = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    for spelling, token in tokens.items():
        with contextlib.suppress(UnicodeDecodeError):
            twins[token] = tokens.get(spelling.decode("utf-8").lower().encode("utf-8"), token)
    return twins


def fit_axes(targets: Targets, size: int) -> Array:
    """Return principal axes of the teacher's sentences and token states, float32 [size, D]."""
    sentences = np.zeros((targets.dimensions, targets.dimensions))
    tokens = np.zeros_like(sentences)
    for number in range(min(AXES_SHARDS, targets.shards)):
        vectors = targets.sentences(number).astype("f8")
        sentences += vectors.T @ vectors
        states = targets.states(number)
        tokens += states.T @ states
    both = sentences / sentences.trace() + TOKEN_SHARE * tokens / tokens.trace()
    return principal_axes(both, size)
