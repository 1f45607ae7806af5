"""The teacher's vectors of many texts: what a text is told apart from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asterisk.training.batches import Targets

SHARDS = 16
DRAWN = 8_192


@dataclass(frozen=True, slots=True)
class Partners:
    """The other texts of a batch's pairs, as the teacher sees them.

    ``rows`` int64 [k] are the batch's texts that have one; ``sentences`` float32 [k, d].
    """

    rows: Tensor
    sentences: Tensor


class Memory:
    """The vectors of the first `SHARDS` shards of ``targets``, and who is whose partner.

    ``pairs`` int64 [m, 2] are texts that mean the same; of several partners the last counts.
    """

    def __init__(self, targets: Targets, pairs: npt.NDArray[np.int64], seed: int) -> None:
        self._targets, self._seed = targets, seed
        self._partner = np.full(len(targets), -1)
        self._partner[pairs[:, 0]] = pairs[:, 1]
        self._partner[pairs[:, 1]] = pairs[:, 0]
        self._vectors: Tensor | None = None

    def draw(self, step: int) -> Tensor:
        """Return the vectors that step ``step`` compares with, float32 [`DRAWN`, d]."""
        if self._vectors is None:
            shards = range(min(SHARDS, self._targets.size))
            some = [torch.from_numpy(self._targets.sentences(number)) for number in shards]
            self._vectors = torch.cat(some)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        return self._vectors[torch.randint(len(self._vectors), (DRAWN,), generator=generator)]

    def partners(self, indices: Sequence[int], device: torch.device) -> Partners:
        """Return the partners of the texts at ``indices``."""
        others = self._partner[np.asarray(indices, "i8")]
        rows = np.flatnonzero(others >= 0)
        sentences = self._targets.sentences_of(others[rows].tolist())
        return Partners(torch.from_numpy(rows).to(device), sentences.to(device))
