"""What deduplication found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.9
"""The cosine from which two texts are taken for near-duplicates unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that say the same: the one that stands for them, and all in ascending order.

    ``similarities`` are the members' cosines with the representative, 1.0 for itself and for its
    exact duplicates; none is below the threshold.
    """

    representative: int
    members: tuple[int, ...]
    similarities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of two rows and more, largest first, of equal ones the earliest first.

    ``rows`` texts were read, of which ``empty`` had nothing to compare and ``exact`` repeated an
    earlier one word for word; ``complete`` tells whether every pair was compared (else those that
    share a cell of a partition), and ``cut`` how many texts the model read only the beginning of.
    """

    threshold: float
    rows: int
    empty: int
    exact: int
    clusters: tuple[Cluster, ...]
    complete: bool = True
    cut: int = 0

    @property
    def removed(self) -> int:
        """Rows that another one stands for."""
        return sum(len(cluster.members) - 1 for cluster in self.clusters)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return which rows stay, bool [rows]: representatives, and all that is in no cluster."""
        stays = np.ones(self.rows, np.bool_)
        for cluster in self.clusters:
            stays[list(cluster.members)] = False
            stays[cluster.representative] = True
        return stays

    def kept(self) -> list[int]:
        """Return the rows that stay, in their order."""
        return [int(row) for row in np.flatnonzero(self.mask())]
