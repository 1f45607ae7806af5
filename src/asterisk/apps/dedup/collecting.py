"""Texts taken in, exact duplicates known by their digests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.apps.dedup.normal import SIZE, digest
from asterisk.apps.dedup.result import Cluster
from asterisk.apps.dedup.spool import Spool

Places = npt.NDArray[np.int64]


class Collected:
    """Values in a spool, a number each, with the digest of what is compared of them."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._digests = bytearray()
        self._empty: list[int] = []

    def append(self, value: Any, text: str | bytes) -> None:
        """Add one; ``text`` is what is compared, or the digest of it."""
        told = digest(text) if isinstance(text, str) else text
        if not told:
            self._empty.append(len(self.spool))
        self.spool.append(value)
        self._digests += told or bytes(SIZE)

    def finish(self) -> Copies:
        """Return which rows are copies of which."""
        self.spool.finish()
        return Copies(bytes(self._digests), np.array(self._empty, np.int64))


class Copies:
    """``rows`` rows, of which ``distinct`` are the first of their kind, ascending, int64 [u]."""

    def __init__(self, digests: bytes, empty: Places) -> None:
        halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
        self.rows, self.empty = len(halves), len(empty)
        order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: the first row stays first
        if self.empty:
            order = order[~np.isin(order, empty)]
        ordered = halves[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        starts = np.flatnonzero(new)
        firsts = order[starts]
        by_place = np.argsort(firsts, kind="stable")
        self.distinct: Places = firsts[by_place]
        self._order = order
        self._starts = starts[by_place]
        self._sizes = np.diff(starts, append=len(order))[by_place]

    @property
    def copies(self) -> int:
        """Rows that repeat an earlier one."""
        return self.rows - self.empty - len(self.distinct)

    def of(self, number: int) -> list[int]:
        """Return the rows that have the text of distinct row ``number``, ascending."""
        start = self._starts[number]
        rows: list[int] = self._order[start : start + self._sizes[number]].tolist()
        return rows

    def spread(self, clusters: Iterable[Cluster]) -> tuple[Cluster, ...]:
        """Return ``clusters`` of distinct rows as clusters of all rows, as `Found` orders them."""
        found, seen = [], np.zeros(len(self.distinct), np.bool_)
        for cluster in clusters:
            seen[list(cluster.members)] = True
            members = sorted(
                (row, cosine)
                for number, cosine in zip(cluster.members, cluster.similarities, strict=True)
                for row in self.of(number)
            )
            rows, cosines = zip(*members, strict=True)
            found.append(Cluster(int(self.distinct[cluster.representative]), rows, cosines))
        for number in np.flatnonzero((self._sizes > 1) & ~seen):
            alike = self.of(int(number))
            found.append(Cluster(alike[0], tuple(alike), (1.0,) * len(alike)))
        found.sort(key=lambda cluster: (-len(cluster.members), cluster.members[0]))
        return tuple(found)
