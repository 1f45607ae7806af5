"""Every pair from a threshold on, all in memory at once: what other thresholds are tried with."""

from __future__ import annotations

import numpy as np

from asterisk.apps.dedup.texts import Rows
from asterisk.apps.dedup.vectors import LEADING, Cosines, Vectors, bound_vectors, compare


def pairs(
    vectors: Vectors, threshold: float, *, threads: int = 1, leading: int = LEADING
) -> tuple[Rows, Rows, Cosines]:
    """Return all pairs i < j with a cosine of at least ``threshold``, in order, and it."""
    none = np.empty(0, np.int64)
    found: list[tuple[Rows, Rows, Cosines]] = [(none, none, np.empty(0))]

    def take(first: Rows, second: Rows) -> None:
        cosines = vectors.of_pairs(first, second)
        near = cosines >= threshold
        found.append((first[near], second[near], cosines[near]))

    buffer, bounds = bound_vectors(vectors, leading)
    compare(bounds, threshold, take, threads=threads, release=buffer.release)
    first, second, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((second, first))
    return first[order], second[order], cosines[order]
