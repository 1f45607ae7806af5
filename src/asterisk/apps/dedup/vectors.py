"""Rows of int8 and their cosines, the same to the last bit however they are asked for.

A dot product of whole numbers below 2^24 is exact in float32 whatever the order of its sum, so that
neither the block a pair is compared in nor the number of threads can move it across a threshold.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import UsageError
from asterisk.common.vectors import LARGEST

Bytes = npt.NDArray[np.int8]
Places = npt.NDArray[np.int64]
Cosines = npt.NDArray[np.float64]

WIDEST = (1 << 24) // LARGEST**2
CHUNK = 1 << 14  # pairs


class Vectors:
    """int8 rows [n, d] with their squared lengths; a row of zeros has cosine 0 with all others.

    ``release`` lets go of pages that reading mapped rows has brought in.
    """

    def __init__(self, rows: Bytes, release: Callable[[], None] = lambda: None) -> None:
        if rows.dtype != np.int8 or rows.ndim != 2 or not 1 <= rows.shape[1] <= WIDEST:
            raise UsageError(f"rows must be int8 [n, 1 to {WIDEST}]")
        self.rows, self.release = rows, release
        self.squares = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            wide = rows[start : start + CHUNK].astype(np.float32)
            self.squares[start : start + CHUNK] = np.einsum("nd,nd->n", wide, wide)
            release()

    def __len__(self) -> int:
        return len(self.rows)

    def of_pairs(self, first: Places, second: Places) -> Cosines:
        """Return the cosine of each pair, float64 [pairs]."""
        out = np.empty(len(first))
        for start in range(0, len(first), CHUNK):
            i, j = first[start : start + CHUNK], second[start : start + CHUNK]
            dots = np.einsum(
                "nd,nd->n", self.rows[i].astype(np.float32), self.rows[j].astype(np.float32)
            )
            out[start : start + CHUNK] = dots / self._lengths(self.squares[i] * self.squares[j])
        return out

    def between(self, first: Places, second: Places) -> Cosines:
        """Return the cosine of each of ``first`` with each of ``second``, float64 [a, b]."""
        dots = self.rows[first].astype(np.float32) @ self.rows[second].astype(np.float32).T
        squares = np.multiply.outer(self.squares[first], self.squares[second])
        found: Cosines = dots / self._lengths(squares)
        return found

    @staticmethod
    def _lengths(squares: Cosines) -> Cosines:
        return np.sqrt(np.maximum(squares, 1.0))
