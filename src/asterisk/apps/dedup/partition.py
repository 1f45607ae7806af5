"""Rows put into cells of their neighbours, so that only those of a cell are compared.

An inverted file (Jégou, Douze and Schmid, 2011): k-means on a sample of the rows, and each row put
into the few cells whose centres are nearest to it. Two near-duplicates are compared if they have
any cell in common; how seldom they have none is measured, see docs/deduplicating.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

CELL = 4_000  # rows a cell, about, were each in one
EACH = 4  # cells a row is put into
SAMPLE = 64  # rows a centre is learnt from
ROUNDS = 8
BLOCK = 8_192


def cells(shadow: Floats, *, cell: int = CELL, each: int = EACH, seed: int = 0) -> Iterator[Places]:
    """Yield the rows of each cell, ascending, int64 [·]; every row is in ``each`` of them.

    ``shadow`` is float32 [n, d] of unit length or a little less, in memory or mapped.
    """
    count = len(shadow)
    many = max(each, -(-count // cell))
    centres = _centres(shadow, many, seed)
    nearest = np.empty((count, each), np.int16 if many < 1 << 15 else np.int32)
    for start in range(0, count, BLOCK):
        towards = shadow[start : start + BLOCK] @ centres.T
        nearest[start : start + BLOCK] = np.argpartition(towards, many - each, axis=1)[:, -each:]
    flat = nearest.reshape(-1)
    order = np.argsort(flat, kind="stable").astype(np.int64 if flat.size >> 31 else np.int32)
    ends = np.cumsum(np.bincount(flat, minlength=many))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield order[start:end].astype(np.int64) // each


def comparisons(sizes: npt.NDArray[np.int64]) -> int:
    """Return how many row comparisons cells of ``sizes`` rows make."""
    return int((sizes.astype(np.float64) ** 2).sum() / 2)


def _centres(shadow: Floats, many: int, seed: int) -> Floats:
    """Return unit vectors, float32 [many, d], by spherical k-means on a sample."""
    draw = np.random.default_rng(seed)
    sample = np.sort(draw.choice(len(shadow), min(len(shadow), many * SAMPLE), replace=False))
    rows = np.asarray(shadow[sample])
    centres = rows[draw.choice(len(rows), many, replace=len(rows) < many)]
    for _ in range(ROUNDS):
        own = np.concatenate(
            [
                (rows[start : start + BLOCK] @ centres.T).argmax(axis=1)
                for start in range(0, len(rows), BLOCK)
            ]
        )
        order = np.argsort(own, kind="stable")
        held, starts = np.unique(own[order], return_index=True)
        sums = np.add.reduceat(rows[order], starts, axis=0)
        centres = centres.copy()
        centres[held] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        empty = np.setdiff1d(np.arange(many), held)
        centres[empty] = rows[draw.choice(len(rows), len(empty))]
    return centres
