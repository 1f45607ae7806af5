"""An endless, repeatable order of batches over mapped targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asterisk.training.targets import Shard

POOL = 8_192


@dataclass(frozen=True, slots=True)
class Batch:
    """B texts padded to T tokens, d dimensions.

    ``ids`` int64 [B, T]; ``mask`` bool [B, T]; ``sentences`` float32 [B, d]; ``tokens``
    float32 [B, T, d]; ``asked`` bool [B, T], tokens that have a target.
    """

    ids: Tensor
    mask: Tensor
    sentences: Tensor
    tokens: Tensor
    asked: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class Targets:
    """All shards as one indexed collection of texts."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.first = np.cumsum([0, *(len(shard.ends) for shard in shards)])
        self.lengths = np.concatenate([np.diff(shard.ends, prepend=0) for shard in shards])

    def __len__(self) -> int:
        return int(self.first[-1])

    def gather(self, indices: Sequence[int]) -> Batch:
        """Read the texts at ``indices`` and pad them to the longest."""
        size = self.shards[0].sentences.shape[1]
        shape = (len(indices), int(self.lengths[indices].max()))
        ids, scales = np.zeros(shape, "i8"), np.zeros(shape, "f4")
        mask = np.zeros(shape, bool)
        tokens = np.zeros((*shape, size), "i1")
        sentences = np.empty((len(indices), size), "f4")
        for row, index in enumerate(indices):
            number = int(np.searchsorted(self.first, index, "right")) - 1
            shard, local = self.shards[number], index - self.first[number]
            end = shard.ends[local]
            count = self.lengths[index]
            ids[row, :count] = shard.ids[end - count : end]
            mask[row, :count] = True
            tokens[row, :count] = shard.tokens[end - count : end]
            scales[row, :count] = shard.scales[end - count : end]
            sentences[row] = shard.sentences[local]
        scale = torch.from_numpy(scales)
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(sentences),
            torch.from_numpy(tokens).float() * scale[..., None],
            scale > 0,
        )


def plan(targets: Targets, batch_tokens: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of indices for ever: texts of like length together, in random order."""
    epoch = 0
    while True:
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(targets))
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            pool = pool[np.argsort(targets.lengths[pool], kind="stable")]
            batches = list(_cut(pool, targets.lengths[pool], batch_tokens))
            for index in random.permutation(len(batches)):
                yield batches[index]
        epoch += 1


def _cut(
    pool: np.ndarray[tuple[int], np.dtype[np.int64]],
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]],
    batch_tokens: int,
) -> Iterator[list[int]]:
    start = 0
    for end in range(1, len(pool) + 1):
        if end == len(pool) or (end + 1 - start) * lengths[end] > batch_tokens:
            yield pool[start:end].tolist()
            start = end
