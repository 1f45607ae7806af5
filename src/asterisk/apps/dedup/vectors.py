"""int8 vectors, and every pair of them from a threshold on without the matrix of all cosines.

A dot product of whole numbers below 2^24 is exact in float32 whatever the order of its sum: blocks
and threads change no pair. Rows are rotated so that their variance is in the first components, and
only pairs for which this bound for unit vectors (Cauchy and Schwarz), one dot product of k + 1
numbers, reaches the threshold have their true cosine computed::

    cos(a, b)  <=  a[:k] · b[:k]  +  |a[k:]| · |b[k:]|
"""

from __future__ import annotations

import itertools
import mmap
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.apps.dedup.texts import Rows, disk_errors
from asterisk.common.errors import UsageError
from asterisk.common.vectors import LARGEST

Cosines = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Take = Callable[[Rows, Rows], None]
Find = Callable[[Rows], Rows]

IN_MEMORY = 64 << 20  # bytes of an array up to which it stays in memory
WIDEST = (1 << 24) // LARGEST**2
CHUNK = 1 << 14  # pairs
BLOCK = 2_048  # rows
LEADING = 64  # components multiplied first
ROTATION_SAMPLE = 8_192  # rows that the rotation is computed from
MARGIN = 1e-4  # more than float32 can lose in a bound
FLAGS = 1 << 16  # flags of a block made into indices at a time
CROWDED = 1 << 12  # of them, from which it pays to look for pairs that are connected already

CELL = 4_000  # rows a cell would have, about, were each row in one cell
CELLS_PER_ROW = 4
CENTRE_SAMPLE = 64  # rows a cell's centre is learnt from
ROUNDS = 8
CELL_BLOCK = 8_192


class RowBuffer:
    """An array [n, d] appended in blocks; beyond ``limit`` bytes in a mapped temporary file.

    The map is only read: writing through one ends the process when the disk is full.
    """

    def __init__(self, dtype: npt.DTypeLike, limit: int = IN_MEMORY) -> None:
        self._dtype, self._limit = np.dtype(dtype), limit
        self._blocks: list[npt.NDArray[Any]] = []
        self._bytes = 0
        self._file: Any = None
        self._map: mmap.mmap | None = None

    def append(self, block: npt.NDArray[Any]) -> None:
        """Add rows; OutputError if the disk is full."""
        block = np.ascontiguousarray(block, self._dtype)
        self._bytes += block.nbytes
        self._blocks.append(block)
        if self._bytes > self._limit:
            with disk_errors():
                self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115
                while self._blocks:
                    self._file.write(self._blocks.pop(0).data)

    def finish(self, columns: int) -> npt.NDArray[Any]:
        """Return all rows, [n, ``columns``], read-only if they are in a file."""
        if self._file is None:
            rows = np.concatenate([np.empty((0, columns), self._dtype), *self._blocks])
            self._blocks = []
            return rows
        with disk_errors():
            self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()  # the map keeps what it needs
        return np.frombuffer(self._map, self._dtype).reshape(-1, columns)

    def release(self) -> None:
        """Let go of the pages that reading has brought in; they are read again when needed."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Vectors:
    """int8 rows [n, d] with their squared lengths; a row of zeros has cosine 0 with all others.

    ``release`` lets go of mapped pages. UsageError for another type or shape, or too wide rows.
    """

    def __init__(
        self, rows: npt.NDArray[np.int8], release: Callable[[], None] = lambda: None
    ) -> None:
        if rows.dtype != np.int8 or rows.ndim != 2 or not 1 <= rows.shape[1] <= WIDEST:
            raise UsageError(f"rows must be int8 [n, 1 to {WIDEST}]")
        self.rows, self.release = rows, release
        self.squares = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            wide = self._floats(slice(start, start + CHUNK))
            self.squares[start : start + CHUNK] = np.einsum("nd,nd->n", wide, wide)
            release()

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self, rows: Rows | slice) -> Cosines:
        """Return the length of each row, 1 for a row of zeros, float64 [rows]."""
        return np.sqrt(np.maximum(self.squares[rows], 1.0))

    def of_pairs(self, first: Rows, second: Rows) -> Cosines:
        """Return the cosine of each pair, float64 [pairs]."""
        out = np.empty(len(first))
        for start in range(0, len(first), CHUNK):
            i, j = first[start : start + CHUNK], second[start : start + CHUNK]
            dots = np.einsum("nd,nd->n", self._floats(i), self._floats(j))
            squares = np.maximum(self.squares[i] * self.squares[j], 1.0)
            out[start : start + CHUNK] = dots / np.sqrt(squares)
        return out

    def between(self, first: Rows, second: Rows) -> Cosines:
        """Return the cosine of each of ``first`` with each of ``second``, float64 [a, b]."""
        dots = self._floats(first) @ self._floats(second).T
        squares = np.multiply.outer(self.squares[first], self.squares[second])
        found: Cosines = dots / np.sqrt(np.maximum(squares, 1.0))
        return found

    def unit(self, rows: slice) -> Floats:
        """Return some rows at unit length, float32 [rows, d]."""
        unit: Floats = self._floats(rows) / self.lengths(rows).astype(np.float32)[:, None]
        return unit

    def _floats(self, rows: Rows | slice) -> Floats:
        return self.rows[rows].astype(np.float32)


def bound_vectors(vectors: Vectors, leading: int = LEADING) -> tuple[RowBuffer, Floats]:
    """Return float32 [n, k + 1] rows whose dot products are no less than the vectors' cosines.

    They are ``leading`` components and the length of the rest, of each rotated unit vector.
    """
    step = max(1, len(vectors) // ROTATION_SAMPLE)
    sample = vectors.unit(slice(None, ROTATION_SAMPLE * step, step)).astype(np.float64)
    _, columns = np.linalg.eigh(sample.T @ sample)  # by ascending variance
    rotation = np.ascontiguousarray(columns[:, ::-1], np.float32)[:, :leading]
    buffer = RowBuffer(np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        first = vectors.unit(rows) @ rotation
        rest = 1 - np.einsum("nd,nd->n", first, first)
        rest[vectors.squares[rows] == 0] = 0
        buffer.append(np.column_stack([first, np.sqrt(np.maximum(rest, 0))]))
        vectors.release()
    return buffer, buffer.finish(min(leading, vectors.rows.shape[1]) + 1)


def compare(
    bounds: Floats,
    threshold: float,
    take: Take,
    *,
    threads: int = 1,
    on_compared: Callable[[int], None] = lambda count: None,
    rows: Rows | None = None,
    find: Find | None = None,
    release: Callable[[], None] = lambda: None,
) -> None:
    """Call ``take`` with the pairs whose bound reaches ``threshold``, int64 [·] twice.

    Each pair comes once, with the smaller row first, from one of ``threads`` threads, of some
    ``rows`` or of all. It may be left out where ``find`` gives both its rows the same number.
    ``on_compared`` is called with the number of row comparisons made.
    """
    rows = np.arange(len(bounds)) if rows is None else rows
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    tasks = itertools.combinations_with_replacement(blocks, 2)
    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        products = np.empty(BLOCK * BLOCK, np.float32)
        while not stop.is_set():
            with lock:
                task = next(tasks, None)
            if task is None:
                return
            first, second = task
            if first is second:  # the first task of each row of blocks
                release()
            if find is None or np.ptp(find(np.concatenate(task))):
                space = products[: len(first) * len(second)].reshape(len(first), len(second))
                np.matmul(bounds[first], bounds[second].T, out=space)
                reached = space >= threshold - MARGIN
                if first is second:
                    reached = np.triu(reached, 1)
                for one, other in _candidates(reached, first, second, find):
                    take(np.minimum(one, other), np.maximum(one, other))
            with lock:
                on_compared(len(first) * len(second))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in as_completed([pool.submit(work) for _ in range(threads)]):
                job.result()
        finally:
            stop.set()


def _candidates(
    reached: npt.NDArray[np.bool_], first: Rows, second: Rows, find: Find | None
) -> Iterator[tuple[Rows, Rows]]:
    """Yield the pairs flagged in ``reached``, bool [first, second], some rows of it at a time."""
    if not reached.any():
        return
    step = max(1, FLAGS // len(second))
    for start in range(0, len(first), step):
        part = reached[start : start + step]
        if find is not None and np.count_nonzero(part) > CROWDED:
            part &= find(first[start : start + step])[:, None] != find(second)
        i, j = np.nonzero(part)
        if len(i):
            yield first[i + start], second[j]


def cells(bounds: Floats, *, cell: int = CELL) -> Iterator[Rows]:
    """Yield the rows of each cell, ascending, int64 [·]; every row is in `CELLS_PER_ROW` of them.

    An inverted file (Jégou, Douze and Schmid, 2011): k-means on a sample of the rows, and each row
    in the few cells whose centres are nearest to it. Near-duplicates seldom share no cell, see
    benchmarks/results. ``bounds`` is float32 [n, d] of unit length or a little less.
    """
    count = max(CELLS_PER_ROW, -(-len(bounds) // cell))
    centres = _centres(bounds, count)
    nearest = np.empty((len(bounds), CELLS_PER_ROW), np.int16 if count < 1 << 15 else np.int32)
    for start in range(0, len(bounds), CELL_BLOCK):
        products = bounds[start : start + CELL_BLOCK] @ centres.T
        best = np.argpartition(products, count - CELLS_PER_ROW, axis=1)[:, -CELLS_PER_ROW:]
        nearest[start : start + CELL_BLOCK] = best
    flat = nearest.reshape(-1)
    order = np.argsort(flat, kind="stable").astype(np.int64 if flat.size >> 31 else np.int32)
    ends = np.cumsum(np.bincount(flat, minlength=count))
    for rows in np.split(order, ends[:-1]):
        yield rows.astype(np.int64) // CELLS_PER_ROW


def _centres(bounds: Floats, count: int) -> Floats:
    """Return unit vectors, float32 [count, d], by spherical k-means on a sample."""
    random = np.random.default_rng(0)
    size = min(len(bounds), count * CENTRE_SAMPLE)
    rows = np.asarray(bounds[np.sort(random.choice(len(bounds), size, replace=False))])
    centres = rows[random.choice(len(rows), count, replace=len(rows) < count)]
    for _ in range(ROUNDS):
        blocks = np.split(rows, range(CELL_BLOCK, len(rows), CELL_BLOCK))
        own = np.concatenate([(block @ centres.T).argmax(axis=1) for block in blocks])
        order = np.argsort(own, kind="stable")
        used, starts = np.unique(own[order], return_index=True)
        sums = np.add.reduceat(rows[order], starts, axis=0)
        centres = centres.copy()
        centres[used] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        empty = np.setdiff1d(np.arange(count), used)
        centres[empty] = rows[random.choice(len(rows), len(empty))]
    return centres
