"""An endless, repeatable order of batches over shards of targets, some still being made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asterisk.common.errors import ArtifactError
from asterisk.training.teachers.targets import SHARD, Shard, shard_folder

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """B texts padded to T tokens, d dimensions.

    ``ids`` int64 [B, T]; ``mask`` bool [B, T]; ``sentences`` float32 [B, d], L2-normalised;
    ``tokens`` float32 [B, T, d]; ``asked`` bool [B, T], tokens that have a target. ``paired``:
    row i of the first half means the same as row i of the second.
    """

    ids: Tensor
    mask: Tensor
    sentences: Tensor
    tokens: Tensor
    asked: Tensor
    paired: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Batch:
        """Return this batch on ``device``."""
        return Batch(
            self.ids.to(device),
            self.mask.to(device),
            self.sentences.to(device),
            self.tokens.to(device),
            self.asked.to(device),
            self.paired,
        )


class Targets:
    """The shards of ``folder`` as one indexed collection of its first ``texts`` texts.

    ``projection`` float32 [d, D] brings the teacher's vectors into the student's space, None where
    they are in it; its token states, too, where the shards hold them as they were, ``as_read``.
    ``fold`` int64 [vocabulary] renames tokens. A shard that is not there yet is waited for,
    ``patience`` seconds at most; then ArtifactError.
    """

    def __init__(
        self,
        folder: Path,
        texts: int,
        projection: npt.NDArray[np.float32] | None,
        fold: Indices | None = None,
        patience: float = 0.0,
        *,
        as_read: bool = False,
    ) -> None:
        self._folder, self._texts, self._patience = folder, texts, patience
        self._projection = None if projection is None else torch.from_numpy(projection)
        self._fold, self._as_read = fold, as_read
        self._shards: list[Shard] = []
        self._lengths: list[Indices] = []

    def __len__(self) -> int:
        return self._texts

    def first(self, shards: int) -> Targets:
        """Return the texts of the first ``shards`` alone."""
        texts = min(self._texts, shards * SHARD)
        projection = None if self._projection is None else self._projection.numpy()
        return Targets(
            self._folder, texts, projection, self._fold, self._patience, as_read=self._as_read
        )

    @property
    def size(self) -> int:
        """How many shards there will be."""
        return -(-self._texts // SHARD)

    def shard(self, number: int) -> Shard:
        """Return shard ``number``, once it is there."""
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
            self._lengths.append(np.diff(shard.ends, prepend=0))
        return self._shards[number]

    def ids(self, number: int) -> Indices:
        """Return the token ids of shard ``number``, renamed, int64 [N]."""
        ids = self.shard(number).ids.astype("i8")
        return (ids if self._fold is None else self._fold[ids])[: self.lengths(number).sum()]

    def sentences(self, number: int) -> npt.NDArray[np.float32]:
        """Return the sentence vectors of shard ``number``, float32 [n, d], L2-normalised."""
        wide = self.shard(number).sentences[: len(self.lengths(number))]
        found: npt.NDArray[np.float32] = self._projected(np.asarray(wide, "f4")).numpy()
        return found

    def sentences_of(self, indices: Sequence[int]) -> Tensor:
        """Return the sentence vectors of texts, float32 [n, d], L2-normalised."""
        places = [divmod(index, SHARD) for index in indices]
        wide = np.array([self.shard(number).sentences[local] for number, local in places], "f4")
        return self._projected(wide.reshape(len(places), self.shard(0).sentences.shape[1]))

    def states(self, number: int) -> npt.NDArray[np.float32]:
        """Return the tokens' targets of shard ``number`` as they are stored, float32 [N, D]."""
        shard = self.shard(number)
        if shard.tokens is None or shard.scales is None:
            raise ArtifactError(f"{self._folder} holds no targets for tokens")
        found: npt.NDArray[np.float32] = shard.tokens * shard.scales[:, None]
        return found

    def _projected(self, wide: npt.NDArray[np.float32]) -> Tensor:
        vectors = torch.from_numpy(wide)
        if self._projection is not None:
            vectors = vectors @ self._projection.T
        return torch.nn.functional.normalize(vectors, dim=-1)

    def lengths(self, number: int) -> Indices:
        """Return how many tokens each text in use of shard ``number`` has."""
        self.shard(number)
        return self._lengths[number][: self._texts - number * SHARD]

    @property
    def dimensions(self) -> int:
        """Dimensions of the student's vectors."""
        if self._projection is not None:
            return len(self._projection)
        return int(self.shard(0).sentences.shape[1])

    @property
    def token_dimensions(self) -> int:
        """Dimensions of the tokens' targets; 0 where there are none."""
        tokens = self.shard(0).tokens
        if tokens is None:
            return 0
        return (
            self.dimensions if self._as_read and self._projection is not None else tokens.shape[1]
        )

    @property
    def show_tokens(self) -> bool:
        """Tell whether tokens have targets of their own."""
        return self.shard(0).tokens is not None

    @property
    def fold(self) -> Indices | None:
        """What each token is renamed to, int64 [vocabulary]; None where none is."""
        return self._fold

    def all_lengths(self) -> Indices:
        """Return how many tokens each text has."""
        return np.concatenate([self.lengths(number) for number in range(self.size)])

    def gather(self, indices: Sequence[int], *, paired: bool = False) -> Batch:
        """Read the texts at ``indices`` and pad them to the longest."""
        places = [(self.shard(index // SHARD), *divmod(index, SHARD)) for index in indices]
        counts = [int(self._lengths[number][local]) for _, number, local in places]
        shape = (len(indices), max(counts))
        stored = self.shard(0).tokens
        size = self.dimensions if stored is None else stored.shape[1]
        ids, scales = np.zeros(shape, "i8"), np.zeros(shape, "f4")
        mask, tokens = np.zeros(shape, bool), np.zeros((*shape, size), "i1")
        for row, ((shard, _, local), count) in enumerate(zip(places, counts, strict=True)):
            where = slice(int(shard.ends[local]) - count, int(shard.ends[local]))
            ids[row, :count] = shard.ids[where]
            mask[row, :count] = True
            if shard.tokens is not None and shard.scales is not None:
                tokens[row, :count] = shard.tokens[where]
                scales[row, :count] = shard.scales[where]
        scale = torch.from_numpy(scales)
        wanted = torch.from_numpy(tokens).float() * scale[..., None]
        if self._as_read and self._projection is not None:
            wanted = wanted @ self._projection.T
        return Batch(
            torch.from_numpy(ids if self._fold is None else self._fold[ids]),
            torch.from_numpy(mask),
            self.sentences_of(indices),
            wanted,
            scale > 0,
            paired,
        )


def plan(targets: Targets, batch_tokens: int, seed: int, replay: int = 0) -> Iterator[list[int]]:
    """Yield batches of indices for ever: texts of like length together, in random order.

    The corpus is shuffled, so the first epoch takes the shards as they come. After each it takes
    again those ``replay``, 1.5 ``replay`` and so on before it, if not 0. Later epochs mix all.
    """
    for new in range(targets.size):
        again = range(new - replay, -1, -max(replay // 2, 1)) if replay else ()
        for number in (new, *again):
            seeds = (seed, 0, new) if number == new else (seed, 0, new, number)
            lengths = targets.lengths(number)
            pool = np.arange(len(lengths)) + number * SHARD
            yield from _pool(pool, lengths, batch_tokens, np.random.default_rng(seeds))
    lengths = targets.all_lengths()
    epoch = 1
    while True:
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(lengths))
        for start in range(0, len(order), SHARD):
            pool = order[start : start + SHARD]
            yield from _pool(pool, lengths[pool], batch_tokens, random)
        epoch += 1


def plan_pairs(pairs: npt.NDArray[np.int64], size: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of ``size`` pairs for ever: all first texts, then all second ones.

    Random, so that what a pair is told apart from is of every kind.
    """
    epoch = 0
    while True:
        order = np.random.default_rng((seed, 1, epoch)).permutation(len(pairs))
        for start in range(0, len(order) - size + 1, size):
            chosen = pairs[order[start : start + size]]
            yield [*chosen[:, 0].tolist(), *chosen[:, 1].tolist()]
        epoch += 1


def _pool(
    pool: Indices, lengths: Indices, batch_tokens: int, random: np.random.Generator
) -> Iterator[list[int]]:
    order = np.argsort(lengths, kind="stable")
    batches = list(_cut(pool[order], lengths[order], batch_tokens))
    for index in random.permutation(len(batches)):
        yield batches[index]


def _cut(pool: Indices, lengths: Indices, batch_tokens: int) -> Iterator[list[int]]:
    start = 0
    for end in range(1, len(pool) + 1):
        if end == len(pool) or (end + 1 - start) * lengths[end] > batch_tokens:
            yield pool[start:end].tolist()
            start = end
