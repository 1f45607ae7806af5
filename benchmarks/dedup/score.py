"""How right pairs are, and what is removed, when it is known what was planted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.dedup.planted import BASE, DUPLICATES, NEGATIVES, Planted

Places = npt.NDArray[np.int64]
UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True)
class Score:
    """Counts and the shares made of them; ``wrong`` by kind, ``found`` is recall by edit."""

    threshold: float
    right: int
    missed: int
    wrong: dict[str, int]
    found: dict[str, float]

    @property
    def precision(self) -> float:
        """Right ones among all found; 1 where nothing was found."""
        every = self.right + sum(self.wrong.values())
        return self.right / every if every else 1.0

    @property
    def recall(self) -> float:
        """Right ones among all that were planted."""
        return self.right / max(1, self.right + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


class Truth:
    """What is known of planted rows, as arrays."""

    def __init__(self, planted: Planted) -> None:
        self.group = np.array(planted.group)
        self.origin = np.array(planted.origin)
        names = [BASE, *DUPLICATES, *NEGATIVES]
        self.names = names
        self.kind = np.array([names.index(kind) for kind in planted.kind], np.int64)
        self.first_negative = names.index(NEGATIVES[0])
        sizes = Counter(planted.group).values()
        self.pairs = sum(size * (size - 1) // 2 for size in sizes)
        self.surplus = sum(size - 1 for size in sizes)

    def of_pairs(self, threshold: float, first: Places, second: Places) -> Score:
        """Score pairs of rows."""
        same = self.group[first] == self.group[second]
        right = int(same.sum())
        a, b = self.kind[first], self.kind[second]
        edited = same & ((a == 0) | (b == 0))
        found = np.bincount(np.maximum(a, b)[edited], minlength=len(self.names))
        planted = np.bincount(self.kind, minlength=len(self.names))
        recall = {
            name: float(found[self.names.index(name)] / max(1, planted[self.names.index(name)]))
            for name in DUPLICATES
        }
        return Score(threshold, right, self.pairs - right, self._wrong(first, second), recall)

    def of_removal(self, threshold: float, stands: Places) -> Score:
        """Score rows removed: ``stands`` is the row that stays for each, itself for what stays."""
        gone = np.flatnonzero(stands != np.arange(len(stands)))
        right = int((self.group[gone] == self.group[stands[gone]]).sum())
        wrong = self._wrong(gone, stands[gone])
        return Score(threshold, right, self.surplus - right, wrong, {})

    def _wrong(self, first: Places, second: Places) -> dict[str, int]:
        amiss = self.group[first] != self.group[second]
        first, second = first[amiss], second[amiss]
        near = self.origin[first] == self.origin[second]
        kinds = np.maximum(self.kind[first], self.kind[second])[near] - self.first_negative
        counts = np.bincount(kinds, minlength=len(NEGATIVES)).tolist()
        return dict(zip(NEGATIVES, counts, strict=True)) | {UNRELATED: int((~near).sum())}


def first_stands(count: int, first: Places, second: Places) -> Places:
    """Return which row stays for each when texts come one by one and the earliest like it stays.

    As a feed reader does it: a text goes if one that stayed before is near it.
    """
    stands = np.arange(count)
    order = np.lexsort((first, second))
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if stands[j] == j and stands[i] == i:
            stands[j] = i
    return stands
