"""From vectors to clusters: near rows are connected, and each group is split into stars.

Star clustering (Aslam, Pelekhov and Rus, 2004): all rows of a star reach the threshold with its
centre. Rows are visited from the one with the most neighbours in the group down (ties: by the mean
cosine with the group, then the earlier row); one that no centre covers yet becomes a centre. Every
other row then goes to the centre nearest to it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from asterisk.apps.dedup.texts import Cluster, Numbers, Rows, contradict
from asterisk.apps.dedup.vectors import CHUNK, Cosines, Vectors, bound_vectors, cells, compare

EXACT = 200_000  # rows up to which every pair is compared; above it those within `cells`
RELEASE = 1_024  # groups after which pages are let go of
SAMPLE = 2_048  # rows of a larger group that neighbours are counted among
BLOCK = 512
DIGITS = 9  # of a mean that count: below is only the order of a sum

Progress = Callable[[str, int, int], None]
NumbersOf = Callable[[int], Numbers]
Star = tuple[Rows, int]  # its rows, and which one represents it


def no_progress(stage: str, finished: int, total: int) -> None:
    """Do nothing."""


class UnionFind:
    """Which of ``count`` rows are connected; safe to use from several threads.

    A group's root is its first row, in whatever order pairs come. Whole arrays of pairs are united
    at once: each root gets the smallest root it is paired with as its parent, until nothing changes
    (Shiloach and Vishkin, 1982).
    """

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int32)
        self._lock = threading.Lock()

    def find(self, rows: Rows) -> Rows:
        """Return the root of each row's group so far, int64 like ``rows``."""
        with self._lock:
            return self._roots(rows)

    def connected(self, first: Rows, second: Rows) -> npt.NDArray[np.bool_]:
        """Return which pairs are in one group so far, bool [pairs]."""
        one, other = self.find(np.stack([first, second]))
        found: npt.NDArray[np.bool_] = one == other
        return found

    def union(self, first: Rows, second: Rows) -> None:
        """Put the two rows of each pair into one group."""
        with self._lock:
            while len(first):
                one, other = self._roots(first), self._roots(second)
                moving = one != other
                first, second = one[moving], other[moving]
                np.minimum.at(self._parent, np.maximum(first, second), np.minimum(first, second))

    def groups(self) -> list[Rows]:
        """Return the rows of each group of two and more, ascending, by their first rows."""
        roots = self._roots(np.arange(len(self._parent)))
        order = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
        sizes = np.diff(starts, append=len(order))
        many = sizes > 1
        return [order[at : at + size] for at, size in zip(starts[many], sizes[many], strict=True)]

    def _roots(self, rows: Rows) -> Rows:
        found: Rows = self._parent[rows].astype(np.int64)
        while not np.array_equal(above := self._parent[found], found):
            found = above.astype(np.int64)
        self._parent[rows] = found  # path compression
        return found


def connect(
    vectors: Vectors,
    threshold: float,
    *,
    threads: int = 1,
    exact: int = EXACT,
    progress: Progress = no_progress,
) -> UnionFind:
    """Unite all rows whose cosine is at least ``threshold``; above ``exact`` rows see `cells`.

    Memory grows with the rows alone, however many pairs are near. ``progress`` is called with
    "compared", how many comparisons of rows are finished, and of how many.
    """
    groups = UnionFind(len(vectors))

    def take(first: Rows, second: Rows) -> None:
        # In a crowd of near-duplicates almost every pair is connected already.
        while len(first):
            apart = ~groups.connected(first, second)
            first, second = first[apart], second[apart]
            one, other = first[:CHUNK], second[:CHUNK]
            near = vectors.of_pairs(one, other) >= threshold
            groups.union(one[near], other[near])
            first, second = first[CHUNK:], second[CHUNK:]

    buffer, bounds = bound_vectors(vectors)
    every = cells(bounds) if len(vectors) > exact else [np.arange(len(vectors))]
    parts = [part for part in every if len(part) > 1]
    total, compared = sum(len(part) ** 2 for part in parts) // 2, 0

    def release() -> None:
        buffer.release()
        vectors.release()

    def on_compared(count: int) -> None:
        nonlocal compared
        compared += count
        progress("compared", min(compared, total), total)

    how: dict[str, Any] = {"threads": threads, "find": groups.find, "release": release}
    for part in parts:
        compare(bounds, threshold, take, rows=part, on_compared=on_compared, **how)
    return groups


def split(
    groups: UnionFind, vectors: Vectors, threshold: float, numbers: NumbersOf | None = None
) -> list[Cluster]:
    """Return the clusters of two rows and more that ``groups`` are split into.

    All members reach ``threshold`` with one of them, the representative; if ``numbers`` gives the
    numbers of a row, they do not contradict the representative's. In the order of the first rows.
    """
    found = []
    for number, group in enumerate(groups.groups()):
        if number % RELEASE == 0:
            vectors.release()
        stars = star_clusters(vectors, group, threshold)
        if numbers is not None:
            stars = _split_by_numbers(vectors, stars, threshold, numbers)
        for rows, at in stars:
            if len(rows) > 1:
                cosines = vectors.between(rows[at : at + 1], rows)[0]
                cosines[at] = 1.0
                members, similarities = tuple(rows.tolist()), tuple(cosines.tolist())
                found.append(Cluster(int(rows[at]), members, similarities))
    return sorted(found, key=lambda cluster: cluster.members[0])


def _split_by_numbers(
    vectors: Vectors, stars: Iterable[Star], threshold: float, numbers: NumbersOf
) -> Iterator[Star]:
    """Yield each star of several rows without those that contradict its centre, then their stars.

    What leaves is split again among rows with the very same numbers, so that one pass settles a
    crowd in which every row differs.
    """
    for rows, centre in stars:
        if len(rows) == 1:
            continue
        own, agreeing = numbers(int(rows[centre])), list[int]()
        others = defaultdict[Numbers, list[int]](list)
        for row in rows.tolist():
            found = numbers(row)
            (others[found] if contradict(own, found) else agreeing).append(row)
        yield np.array(agreeing), agreeing.index(rows[centre])
        for same in others.values():
            group = np.array(same)
            # Two rows of a star reach its centre, not always one another.
            if len(group) > 2 or (
                len(group) == 2 and vectors.between(group[:1], group[1:]).min() >= threshold
            ):
                yield from star_clusters(vectors, group, threshold)


def star_clusters(vectors: Vectors, group: Rows, threshold: float) -> Iterator[Star]:
    """Yield each star of ``group`` (ascending): its rows, ascending, and which one represents it.

    That is the star's medoid, the row with the highest mean cosine with the star (ties: the
    earliest), if all its rows reach the threshold with it; else its centre. Stars of one row come
    too.
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
        medoid = int(np.argmax(_means(vectors, rows, rows)))
        if medoid != centre and vectors.between(rows[[medoid]], rows).min() < threshold:
            medoid = centre
        yield rows, medoid


def _centres(vectors: Vectors, group: Rows, threshold: float) -> Rows:
    sample = group[np.linspace(0, len(group) - 1, min(SAMPLE, len(group))).astype(np.int64)]
    near = [(vectors.between(rows, sample) >= threshold).sum(axis=1) for rows in _blocks(group)]
    left = group[np.lexsort((-_means(vectors, group, sample), -np.concatenate(near)))]
    chosen: list[Rows] = []
    while len(left):
        block, left = left[:BLOCK], left[BLOCK:]
        covers = vectors.between(block, block) >= threshold
        covered, centres = np.zeros(len(block), np.bool_), []
        for row in range(len(block)):
            if not covered[row]:
                centres.append(row)
                covered |= covers[row]
        chosen.append(block[centres])
        cosines = [vectors.between(rows, chosen[-1]) for rows in _blocks(left)]
        left = left[np.concatenate([(part < threshold).all(axis=1) for part in cosines])]
    return np.concatenate(chosen)


def _nearest(vectors: Vectors, group: Rows, centres: Rows) -> Rows:
    """Return the number of the nearest centre for each row of ``group``, ties to the first."""
    own = np.empty(len(group), np.int64)
    for start in range(0, len(group), BLOCK):
        rows = group[start : start + BLOCK]
        best = np.full(len(rows), -np.inf)
        for first in range(0, len(centres), BLOCK):
            cosines = vectors.between(rows, centres[first : first + BLOCK])
            better = cosines.max(axis=1) > best
            own[start : start + BLOCK][better] = cosines.argmax(axis=1)[better] + first
            best = np.maximum(best, cosines.max(axis=1))
    own[np.searchsorted(group, centres)] = np.arange(len(centres))  # whatever its twin
    return own


def _means(vectors: Vectors, rows: Rows, others: Rows) -> Cosines:
    """Return each row's mean cosine with ``others``, float64 [rows]."""
    total = np.zeros(vectors.rows.shape[1])
    for part in _blocks(others):
        total += (vectors.rows[part] / vectors.lengths(part)[:, None]).sum(axis=0)
    total /= len(others)
    found = [
        vectors.rows[part].astype(np.float64) @ total / vectors.lengths(part)
        for part in _blocks(rows)
    ]
    return cast(Cosines, np.round(np.concatenate(found), DIGITS))


def _blocks(rows: Rows) -> list[Rows]:
    return np.split(rows, range(BLOCK, len(rows), BLOCK))
