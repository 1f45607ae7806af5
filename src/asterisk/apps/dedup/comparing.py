"""Every pair of rows from a threshold on, without the matrix of all of them.

Blocks of rows are multiplied with one another in float32. Most of the work is saved exactly: rows
are turned so that their variance stands in the first components (an orthogonal turn changes no dot
product), and by Cauchy and Schwarz

    cos(a, b)  <=  a[:k] · b[:k]  +  |a[k:]| · |b[k:]|

for unit vectors, which is one dot product of k + 1 numbers. Only pairs for which this bound reaches
the threshold have their true cosine taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from asterisk.apps.dedup.spool import Rows
from asterisk.apps.dedup.vectors import Places, Vectors

Floats = npt.NDArray[np.float32]
Take = Callable[[Places, Places], None]

BLOCK = 2_048
LEADING = 64  # components multiplied first
SAMPLE = 8_192  # rows that say which turn is best
MARGIN = 1e-4  # more than float32 can lose in a bound
AT_ONCE = 1 << 16  # marks made into indices at a time
CROWDED = 1 << 12  # of them, from which it pays to look for pairs that need none


def shadows(vectors: Vectors, leading: int = LEADING) -> tuple[Rows, Floats]:
    """Return float32 [n, k + 1] rows whose dot products are no less than the vectors' cosines.

    ``leading`` components and the length of the rest, each of a unit vector after the turn.
    """
    rows, size = vectors.rows, vectors.rows.shape[1]
    turn = _turn(vectors)[:, :leading]
    made = Rows(np.float32)
    for start in range(0, len(rows), BLOCK):
        unit = _unit(vectors, slice(start, start + BLOCK))
        kept = unit @ turn
        rest = 1 - np.einsum("nd,nd->n", kept, kept)
        rest[vectors.squares[start : start + BLOCK] == 0] = 0
        made.append(np.column_stack([kept, np.sqrt(np.maximum(rest, 0))]))
        vectors.release()
    return made, made.finish(min(leading, size) + 1)


def compare(
    shadow: Floats,
    least: float,
    take: Take,
    *,
    threads: int = 1,
    done: Callable[[int], None] = lambda count: None,
    order: Places | None = None,
    names: Callable[[Places], Places] | None = None,
    release: Callable[[], None] = lambda: None,
) -> None:
    """Call ``take`` with the pairs whose bound is at least ``least``, int64 [·] twice.

    Each pair once, with the smaller row first; from ``threads`` threads. ``order`` restricts it to
    some rows. Where ``names`` gives two rows the same name, the pair may be left out: in a crowd of
    near-duplicates, that are joined as they come, almost every pair is. ``done`` is told the number
    of row comparisons. What a thread raises is raised.
    """
    count = len(shadow) if order is None else len(order)
    starts = range(0, count, BLOCK)
    tasks = ((top, left) for top in starts for left in range(top, count, BLOCK))
    lock, failed = threading.Lock(), threading.Event()

    def rows(start: int) -> Floats:
        if order is None:
            return shadow[start : start + BLOCK]
        return shadow[order[start : start + BLOCK]]

    def numbers(start: int) -> Places:
        if order is None:
            return np.arange(start, min(start + BLOCK, count))
        return order[start : start + BLOCK]

    def lane() -> None:
        space = np.empty(BLOCK * BLOCK, np.float32)
        at, above = -1, shadow[:0]
        try:
            while not failed.is_set():
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                top, left = task
                if top != at:
                    at, above = top, rows(top)
                    release()
                one, other = numbers(top), numbers(left)
                if names is not None and _is_one(names(one), names(other)):
                    with lock:
                        done(len(one) * len(other))
                    continue
                beside = rows(left)
                bounds = space[: len(above) * len(beside)].reshape(len(above), len(beside))
                np.matmul(above, beside.T, out=bounds)
                high = bounds >= least - MARGIN
                if top == left:
                    high = np.triu(high, 1)
                for first, second in _found(high, one, other, names):
                    take(np.minimum(first, second), np.maximum(first, second))
                with lock:
                    done(bounds.size)
        except BaseException:
            failed.set()
            raise

    if threads < 2 or count <= BLOCK:
        lane()
        return
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(lane) for _ in range(threads)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            failed.set()
            raise


def true_pairs(
    vectors: Vectors, threshold: float, first: Places, second: Places
) -> tuple[Places, Places, npt.NDArray[np.float64]]:
    """Return those pairs whose cosine is at least ``threshold``, and their cosines."""
    cosines = vectors.of_pairs(first, second)
    near = cosines >= threshold
    return first[near], second[near], cosines[near]


def pairs(
    vectors: Vectors, threshold: float, *, threads: int = 1, leading: int = LEADING
) -> tuple[Places, Places, npt.NDArray[np.float64]]:
    """Return all pairs i < j whose cosine is at least ``threshold``, in order, and their cosines.

    They are all held at once: for clusters use what joins them as they come.
    """
    found: list[tuple[Places, Places, npt.NDArray[np.float64]]] = []

    def take(first: Places, second: Places) -> None:
        found.append(true_pairs(vectors, threshold, first, second))

    held, shadow = shadows(vectors, leading)
    compare(shadow, threshold, take, threads=threads, release=held.release)
    if not found:
        none = np.empty(0, np.int64)
        return none, none, np.empty(0)
    first, second, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((second, first))
    return first[order], second[order], cosines[order]


def _is_one(names: Places, others: Places) -> bool:
    return bool((names == names[0]).all() and (others == names[0]).all())


def _found(
    high: npt.NDArray[np.bool_],
    one: Places,
    other: Places,
    names: Callable[[Places], Places] | None,
) -> Iterator[tuple[Places, Places]]:
    """Yield the pairs that are marked in ``high``, bool [one, other], some rows of it at a time."""
    if not high.any():
        return
    step = max(1, AT_ONCE // len(other))
    for start in range(0, len(one), step):
        part = high[start : start + step]
        if names is not None and np.count_nonzero(part) > CROWDED:
            part &= names(one[start : start + step])[:, None] != names(other)
        i, j = np.nonzero(part)
        if len(i):
            yield one[i + start], other[j]


def _turn(vectors: Vectors) -> Floats:
    """Return the orthogonal [d, d] whose first columns hold most of the rows' lengths."""
    step = max(1, len(vectors) // SAMPLE)
    unit = _unit(vectors, slice(None, SAMPLE * step, step)).astype(np.float64)
    _, columns = np.linalg.eigh(unit.T @ unit)
    turn: Floats = np.ascontiguousarray(columns[:, ::-1], np.float32)
    return turn


def _unit(vectors: Vectors, some: slice) -> Floats:
    lengths = np.sqrt(np.maximum(vectors.squares[some], 1)).astype(np.float32)
    unit: Floats = vectors.rows[some].astype(np.float32) / lengths[:, None]
    return unit
