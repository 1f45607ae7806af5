"""A group that hangs together parted into stars: everything near its centre, not near a chain.

In a group linked pair by pair, the first and the last row may have nothing in common. A star has a
centre that each of its rows reaches the threshold with (Aslam, Pelekhov and Rus, 2004): rows are
gone through from the one with most neighbours in the group down, ties by the mean cosine with the
group, then the earlier row; one that no centre covers yet becomes a centre. Every other row then
goes to the centre nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from asterisk.apps.dedup.vectors import Cosines, Places, Vectors

SAMPLE = 2_048  # rows of a larger group that neighbours are counted among
BLOCK = 512
DIGITS = 9  # of a mean that count: below is only the order of a sum


def stars(vectors: Vectors, group: Places, threshold: float) -> Iterator[tuple[Places, int]]:
    """Yield each star of ``group`` (ascending): its rows, ascending, and what stands for it.

    That one is the star's medoid, the row with the highest mean cosine with the star (ties: the
    earliest), if all its rows reach the threshold with it; else its centre. Stars of one row too.
    """
    if len(group) == 2:
        yield group, 0
        return
    centres = _centres(vectors, group, threshold)
    own = _nearest(vectors, group, centres)
    order = np.argsort(own, kind="stable")
    sizes = np.bincount(own, minlength=len(centres))
    for number, part in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        rows = group[part]
        centre = int(np.searchsorted(rows, centres[number]))
        yield rows, _representative(vectors, rows, centre, threshold)


def _representative(vectors: Vectors, rows: Places, centre: int, threshold: float) -> int:
    medoid = int(np.argmax(_means(vectors, rows, rows)))
    if medoid == centre:
        return centre
    reached = vectors.between(rows[medoid : medoid + 1], rows).min() >= threshold
    return medoid if reached else centre


def _centres(vectors: Vectors, group: Places, threshold: float) -> Places:
    some = group[np.linspace(0, len(group) - 1, min(SAMPLE, len(group))).astype(np.int64)]
    degrees = np.concatenate(
        [
            (vectors.between(group[start : start + BLOCK], some) >= threshold).sum(axis=1)
            for start in range(0, len(group), BLOCK)
        ]
    )
    left = group[np.lexsort((group, -_means(vectors, group, some), -degrees))]
    chosen: list[Places] = []
    while len(left):
        block, left = left[:BLOCK], left[BLOCK:]
        new = block[_uncovered(vectors.between(block, block) >= threshold)]
        chosen.append(new)
        kept = [
            part[~(vectors.between(part, new) >= threshold).any(axis=1)]
            for part in np.split(left, range(BLOCK, len(left), BLOCK))
            if len(part)
        ]
        left = np.concatenate(kept) if kept else left[:0]
    return np.concatenate(chosen)


def _uncovered(near: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> list[int]:
    """Return the rows of ``near``, bool [n, n], that none returned before reaches, in order."""
    covered = np.zeros(len(near), np.bool_)
    found = []
    for row in range(len(near)):
        if not covered[row]:
            found.append(row)
            covered |= near[row]
    return found


def _nearest(vectors: Vectors, group: Places, centres: Places) -> Places:
    """Return the number of the nearest centre for each row of ``group``, ties to the first."""
    own = np.empty(len(group), np.int64)
    for start in range(0, len(group), BLOCK):
        rows = group[start : start + BLOCK]
        best = np.full(len(rows), -np.inf)
        for first in range(0, len(centres), BLOCK):
            cosines = vectors.between(rows, centres[first : first + BLOCK])
            place = cosines.argmax(axis=1)
            value = cosines[np.arange(len(rows)), place]
            better = value > best
            own[start : start + BLOCK][better] = place[better] + first
            best = np.maximum(best, value)
    numbers = np.full(len(group), -1)
    numbers[np.searchsorted(group, centres)] = np.arange(len(centres))
    return np.where(numbers >= 0, numbers, own)  # a centre is its own, whatever its twin


def _means(vectors: Vectors, rows: Places, others: Places) -> Cosines:
    """Return each row's mean cosine with ``others``, float64 [rows]."""
    total = np.zeros(vectors.rows.shape[1])
    for start in range(0, len(others), BLOCK):
        part = others[start : start + BLOCK]
        lengths = np.sqrt(np.maximum(vectors.squares[part], 1))
        total += (vectors.rows[part] / lengths[:, None]).sum(axis=0)
    total /= len(others)
    found = [
        vectors.rows[part].astype(np.float64)
        @ total
        / np.sqrt(np.maximum(vectors.squares[part], 1))
        for part in np.split(rows, range(BLOCK, len(rows), BLOCK))
    ]
    return cast(Cosines, np.round(np.concatenate(found), DIGITS))
