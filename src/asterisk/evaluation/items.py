"""What a task measured, item by item, so that it can be resampled.

A resample of n items is how often each was drawn. A metric over counted items is computed exactly
from the counts, without sorting again: 1,000 resamples cost little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Items(Protocol):
    """n items of one task and the metric over them, times 100."""

    def __len__(self) -> int:
        """Return n."""

    def score(self) -> float:
        """Return the metric over every item once."""

    def resampled(self, counts: Counts) -> Floats:
        """Return the metric of B resamples, float64 [B], from how often each drew each item."""


@dataclass(frozen=True, slots=True)
class Means:
    """A value for each item, float64 [n]; the metric is their mean."""

    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def score(self) -> float:
        """Return the mean."""
        return float(100 * self.values.mean())

    def resampled(self, counts: Counts) -> Floats:
        """Return the mean of each resample."""
        return np.asarray(100 * (counts @ self.values) / counts.sum(1))


@dataclass(frozen=True, slots=True)
class Ranks:
    """Two values for each item, float64 [n] each; the metric is Spearman's correlation."""

    first: Floats
    second: Floats

    def __len__(self) -> int:
        return len(self.first)

    def score(self) -> float:
        """Return SciPy's figure; 0 where one side is constant."""
        if np.ptp(self.first) == 0 or np.ptp(self.second) == 0:
            return 0.0
        stats = require("scipy.stats", "eval")
        return float(100 * stats.spearmanr(self.first, self.second).statistic)

    def resampled(self, counts: Counts) -> Floats:
        """Return the correlation of each resample's own ranks, ties averaged."""
        total = counts.sum(1, keepdims=True)
        mean = (total + 1) / 2
        a, b = (_ranks(side, counts) - mean for side in (self.first, self.second))
        both = np.einsum("bn,bn,bn->b", counts, a, b)
        spread = np.einsum("bn,bn,bn->b", counts, a, a) * np.einsum("bn,bn,bn->b", counts, b, b)
        spread[spread == 0] = np.inf
        return np.asarray(100 * both / np.sqrt(spread))


@dataclass(frozen=True, slots=True)
class Precision:
    """Whether each item is positive, bool [n], and its score; the metric is average precision."""

    positive: npt.NDArray[np.bool_]
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def score(self) -> float:
        """Return scikit-learn's figure."""
        metrics = require("sklearn.metrics", "eval")
        return float(100 * metrics.average_precision_score(self.positive, self.scores))

    def resampled(self, counts: Counts) -> Floats:
        """Return the average precision of each resample; equal scores are one threshold."""
        order, starts = _groups(-self.scores)
        drawn = counts[:, order]
        everything = np.add.reduceat(drawn, starts, axis=1).cumsum(1)
        right = np.add.reduceat(drawn * self.positive[order], starts, axis=1).cumsum(1)
        precision = right / np.maximum(everything, 1)
        gained = np.diff(right, axis=1, prepend=0)
        return np.asarray(100 * (gained * precision).sum(1) / np.maximum(right[:, -1], 1))


@dataclass(frozen=True, slots=True)
class Clusters:
    """The class of each item and its cluster in each of several runs, all counted from 0.

    The metric is the mean V-measure of the runs; a resample keeps their clusters.
    """

    classes: npt.NDArray[np.int64]
    runs: Sequence[npt.NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.classes)

    def score(self) -> float:
        """Return scikit-learn's figure, the mean over the runs."""
        metrics = require("sklearn.metrics", "eval")
        found = [metrics.v_measure_score(self.classes, clusters) for clusters in self.runs]
        return float(100 * np.mean(found))

    def resampled(self, counts: Counts) -> Floats:
        """Return the mean V-measure of each resample."""
        each = [_v_measures(self.classes, run, counts) for run in self.runs]
        return np.asarray(np.mean(each, axis=0))


def draw(name: str, items: int, *, resamples: int, seed: int) -> Counts:
    """Return ``resamples`` of ``items`` with replacement as counts, int64 [resamples, items].

    The same for every model and every task over the items that ``name`` stands for.
    """
    random = np.random.default_rng([seed, *name.encode()])
    return random.multinomial(items, np.full(items, 1 / items), size=resamples)


def _groups(values: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return an ascending order and where each run of equal values starts in it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _ranks(values: Floats, counts: Counts) -> Floats:
    """Return each item's average rank in each resample, float64 [B, n]."""
    order, starts = _groups(values)
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = sizes.cumsum(1) - (sizes - 1) / 2
    lengths = np.diff(np.r_[starts, len(order)])
    out = np.empty(counts.shape)
    out[:, order] = np.repeat(ranks, lengths, axis=1)
    return out


def _v_measures(
    classes: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64], counts: Counts
) -> Floats:
    width = int(clusters.max()) + 1
    cells, where = np.unique(classes * width + clusters, return_inverse=True)
    out = np.empty(len(counts))
    for row, drawn in enumerate(counts):
        joint = np.bincount(where, weights=drawn, minlength=len(cells)) / drawn.sum()
        a, b = (_entropy(np.bincount(side, weights=joint)) for side in divmod(cells, width))
        shared = a + b - _entropy(joint)
        out[row] = 200 * shared / (a + b) if a + b > 0 else 100.0
    return out


def _entropy(shares: npt.NDArray[Any]) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())
