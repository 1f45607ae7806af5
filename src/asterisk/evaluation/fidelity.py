"""How far one runtime's vectors are from the FP32 ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]
NEIGHBOURS = 10
# Of the 984 texts that ship, 106 pairs are as near as this: one decision is then about a percent.
# At .8 there are 23 and at .9 three, and a share of three says nothing.
DUPLICATE = 0.7
PAIRED = 2_048  # texts at most whose pairs are ranked: 2.1 million pairs, some 100 MB


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Agreement of n vectors with their FP32 counterparts.

    Cosines are of each vector with its counterpart: mean, 1st percentile and minimum.
    ``overlap_at_10`` is the mean share of each text's ten nearest neighbours that the two sets of
    vectors have in common.
    """

    texts: int
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    overlap_at_10: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def compare(ours: Vectors, reference: Vectors) -> Fidelity:
    """Compare two float arrays [n, d], row with row; n > 10, no row all zeros."""
    a, b = unit_rows(ours), unit_rows(reference)
    cosines = np.einsum("ij,ij->i", a, b)
    return Fidelity(
        texts=len(a),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        overlap_at_10=overlap(a, b),
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Agreement of the similarities of all pairs of texts with those under FP32.

    ``spearman`` is the rank correlation of the two sets of pairwise cosines, ties averaged: 1 if
    every ranking by similarity is the same. ``flipped`` is, among the pairs that either side calls
    duplicates (cosine of at least `DUPLICATE`), the share that only one of them does; 0 where
    neither has any. Relative to those and not to all pairs, since nearly all pairs are unlike by
    any measure: what a person sees is how much of the list of duplicates is another.
    """

    spearman: float
    flipped: float


def compare_pairs(ours: Vectors, reference: Vectors) -> Pairs:
    """Compare the similarities within two float arrays [n, d]; n > 1, no row all zeros.

    Over the first 2,048 rows, so that memory has a bound.
    """
    units = (unit_rows(some[:PAIRED]) for some in (ours, reference))
    a, b = ((unit @ unit.T)[np.triu_indices(len(unit), 1)] for unit in units)
    return Pairs(spearman(a, b), flipped(a, b))


def spearman(a: Doubles, b: Doubles) -> float:
    """Return Spearman's rank correlation of two arrays [n], ties averaged.

    0 where all values of one array are the same: there is no order to agree on.
    """
    x, y = _ranks(a), _ranks(b)
    x -= x.mean()
    y -= y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def flipped(a: Doubles, b: Doubles, threshold: float = DUPLICATE) -> float:
    """Return the share of pairs on one side of ``threshold`` only, of those above it in either."""
    x, y = a >= threshold, b >= threshold
    either = int((x | y).sum())
    return int((x ^ y).sum()) / either if either else 0.0


def stability(alone: Vectors, listed: Vectors) -> float:
    """Return the smallest cosine of a text embedded alone with the same text embedded in a list.

    Two float arrays [n, d], row with row; -1 where a row of either is not finite or all zeros.
    """
    a, b = alone.astype(np.float64), listed.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        return -1.0
    return min(1.0, float((np.einsum("ij,ij->i", a, b) / lengths).min()))


def overlap(a: Doubles, b: Doubles) -> float:
    """Return the mean share of common neighbours among the nearest ten, for unit rows [n, d]."""
    return common(nearest(a, a), nearest(b, b))


def common(near: Positions, others: Positions) -> float:
    """Return the mean share that the rows of two results of `nearest`, [n, k], have in common."""
    shared = [len(np.intersect1d(x, y)) for x, y in zip(near, others, strict=True)]
    return float(np.mean(shared) / near.shape[1])


def nearest(queries: Doubles, index: Doubles) -> Positions:
    """Return the positions [n, k] in ``index`` of the ten nearest to each query, in no order.

    Unit rows [n, d] of the same n texts; a text is no neighbour of its own.
    """
    similar = queries @ index.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, len(similar) - 1)
    return np.argpartition(-similar, count - 1, axis=1)[:, :count]


def _ranks(values: Doubles) -> Doubles:
    """Return ranks from 0, the mean of their positions for values that are equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (counts - 1) / 2, counts)
    return ranks


def unit_rows(vectors: Vectors) -> Doubles:
    """Return float vectors [n, d] at unit length; no row all zeros."""
    wide = vectors.astype(np.float64)
    unit: Doubles = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
