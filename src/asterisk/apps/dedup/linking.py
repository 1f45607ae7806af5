"""Groups of rows that hang together, in one number a row (union-find)."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Links:
    """Which of ``count`` rows hang together; safe to use from several threads.

    A group is named after its first row, so that the order in which pairs come leaves no trace.
    Whole arrays of pairs are joined at once: each root is hung under the smallest it is paired
    with, until nothing moves (Shiloach and Vishkin, 1982).
    """

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int32)
        self._lock = threading.Lock()

    def names(self, rows: Places) -> Places:
        """Return the first row of each row's group so far."""
        with self._lock:
            return self._roots(rows)

    def apart(self, first: Places, second: Places) -> npt.NDArray[np.bool_]:
        """Return which pairs are in different groups so far, bool [pairs]."""
        with self._lock:
            found: npt.NDArray[np.bool_] = self._roots(first) != self._roots(second)
        return found

    def join(self, first: Places, second: Places) -> None:
        """Put the two rows of each pair into one group."""
        with self._lock:
            while len(first):
                one, other = self._roots(first), self._roots(second)
                moving = one != other
                first, second = one[moving], other[moving]
                np.minimum.at(self._parent, np.maximum(first, second), np.minimum(first, second))

    def groups(self) -> list[npt.NDArray[np.int64]]:
        """Return the rows of each group of two and more, ascending, by their first rows."""
        roots = self._roots(np.arange(len(self._parent)))
        order = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
        sizes = np.diff(starts, append=len(order))
        return [
            order[start : start + size]
            for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True)
        ]

    def _roots(self, rows: Places) -> Places:
        found: Places = self._parent[rows].astype(np.int64)
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above.astype(np.int64)
        self._parent[rows] = found  # shorter ways next time
        return found
