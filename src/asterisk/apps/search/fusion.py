"""Several rankings as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

K = 60


def fused(rankings: Iterable[Sequence[int]]) -> list[tuple[int, float]]:
    """Return (item, score) of all ``rankings``, best first: reciprocal rank fusion.

    An item's score is the sum of 1 / (60 + rank) over the rankings it stands in (Cormack, Clarke
    and Büttcher, SIGIR 2009). Among equals the one that an earlier ranking has first is first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
