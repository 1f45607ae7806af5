"""How far one runtime's vectors are from the FP32 ones."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Agreement of vectors with their FP32 counterparts."""

    texts: int
    cosine_mean: float  # of each vector with its counterpart
    cosine_p1: float  # the 1st percentile
    cosine_min: float
    overlap_at_10: float  # mean share of a text's ten nearest neighbours that both have in common


def compare(ours: Vectors, reference: Vectors) -> Fidelity:
    """Compare two float arrays [n, d], row with row; n > 10, no row all zeros."""
    a, b = unit_rows(ours), unit_rows(reference)
    cosines = np.einsum("ij,ij->i", a, b)
    return Fidelity(
        texts=len(a),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        overlap_at_10=common(nearest(a, a), nearest(b, b)),
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Agreement of the similarities of all pairs of texts with those under FP32.

    ``flipped`` is relative to the pairs that either side calls duplicates, since nearly all pairs
    are unlike by any measure: how much of the list of duplicates is another.
    """

    spearman: float
    flipped: float


def compare_pairs(ours: Vectors, reference: Vectors) -> Pairs:
    """Compare the similarities within two float arrays [n, d], n > 1, their first 2,048 rows."""
    units = (unit_rows(some[:PAIRED]) for some in (ours, reference))
    a, b = ((unit @ unit.T)[np.triu_indices(len(unit), 1)] for unit in units)
    return Pairs(spearman(a, b), flipped(a, b))


def spearman(a: Doubles, b: Doubles) -> float:
    """Return Spearman's correlation of two arrays [n], ties averaged; 0 where one is constant."""
    once = np.ones((1, len(a)), np.int64)
    x, y = (ranks(side, once)[0] for side in (a, b))
    x -= x.mean()
    y -= y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def flipped(a: Doubles, b: Doubles, threshold: float = DUPLICATE) -> float:
    """Return the share that is duplicates in one only, of those in either; 0 without any."""
    x, y = a >= threshold, b >= threshold
    either = int((x | y).sum())
    return int((x ^ y).sum()) / either if either else 0.0


def stability(alone: Vectors, listed: Vectors) -> float:
    """Return the smallest cosine of two float arrays [n, d], row with row: alone and in a list.

    -1 where a row of either is not finite or all zeros.
    """
    a, b = alone.astype(np.float64), listed.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        return -1.0
    return min(1.0, float((np.einsum("ij,ij->i", a, b) / lengths).min()))


def common(positions: Positions, others: Positions) -> float:
    """Return the mean share that the rows of two results of `nearest`, [n, k], have in common."""
    shared = [len(np.intersect1d(x, y)) for x, y in zip(positions, others, strict=True)]
    return float(np.mean(shared) / positions.shape[1])


def nearest(queries: Doubles, index: Doubles) -> Positions:
    """Return the ten nearest other texts of each, by unit rows [n, d]: [n, 10], in no order."""
    similar = queries @ index.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, len(similar) - 1)
    return np.argpartition(-similar, count - 1, axis=1)[:, :count]


def equal_runs(values: Doubles) -> tuple[Positions, Positions]:
    """Return an ascending order and where each run of equal values starts in it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def ranks(values: Doubles, counts: npt.NDArray[np.int64]) -> Doubles:
    """Return values' ranks from 1, ties averaged, where each occurs ``counts`` [B, n] times."""
    order, starts = equal_runs(values)
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    means = sizes.cumsum(1) - (sizes - 1) / 2
    out = np.empty(counts.shape)
    out[:, order] = np.repeat(means, np.diff(np.r_[starts, len(order)]), axis=1)
    return out


def unit_rows(vectors: Vectors) -> Doubles:
    """Return float vectors [n, d] at unit length; no row all zeros."""
    wide = vectors.astype(np.float64)
    unit: Doubles = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
