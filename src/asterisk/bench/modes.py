"""Whether samples come from one way of running or from several. Standard library only.

A processor that changes its clock, a machine that shares its cores, a process that was unlucky
with its pages: then a median lies between two times that both occur, and means neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log, sqrt

ENOUGH = 50  # samples below which no shape is to be seen
GRID = 200
TAIL = 0.01  # share left out at either end: outliers are not a way of running
NARROW = 0.01  # least width of the kernel, relative: closer times are not two
REACH = 4.0  # widths at which the kernel ends
VALLEY = 0.5  # of the lower peak, above which two peaks are one
SHARE = 0.1  # of the samples that a peak has at least


def modes(samples: Sequence[float]) -> int:
    """Return how many separate peaks the samples have; 1 where there are fewer than `ENOUGH`.

    Peaks of a kernel density estimate of their logarithms (Silverman's width) that hold a tenth of
    the samples each, with a valley between them of at most half the lower peak.
    """
    if len(samples) < ENOUGH or min(samples) <= 0:
        return 1
    inner = sorted(map(log, samples))
    cut = int(TAIL * len(inner))
    inner = inner[cut : len(inner) - cut]
    width = max(_silverman(inner), NARROW)
    low, high = inner[0] - width, inner[-1] + width
    step = (high - low) / (GRID - 1)
    counts = [0] * GRID
    for value in inner:
        counts[round((value - low) / step)] += 1
    return _peaks(counts, _smooth(counts, width / step))


def _silverman(ordered: Sequence[float]) -> float:
    middle = sum(ordered) / len(ordered)
    deviation = sqrt(sum((value - middle) ** 2 for value in ordered) / len(ordered))
    quarter = len(ordered) // 4
    spread = (ordered[-1 - quarter] - ordered[quarter]) / 1.34
    # Of two modes both are wide: less than half the usual width keeps their valley visible.
    return 0.4 * (min(deviation, spread) or deviation) * float(len(ordered) ** -0.2)


def _smooth(counts: Sequence[int], width: float) -> list[float]:
    reach = int(REACH * width) + 1
    kernel = [exp(-0.5 * (place / width) ** 2) for place in range(-reach, reach + 1)]
    density = [0.0] * len(counts)
    for place, count in enumerate(counts):
        if count:
            for offset, weight in enumerate(kernel, place - reach):
                if 0 <= offset < len(density):
                    density[offset] += count * weight
    return density


def _peaks(counts: Sequence[int], density: Sequence[float]) -> int:
    """Join peaks with the neighbour of the shallowest valley until every one of them counts."""
    tops, valleys = _extremes(density)
    least = SHARE * sum(counts)
    while len(tops) > 1:
        edges = [0, *valleys, len(density)]
        held = [sum(counts[edges[i] : edges[i + 1]]) for i in range(len(tops))]
        depth = [
            density[valley] / min(density[tops[i]], density[tops[i + 1]])
            for i, valley in enumerate(valleys)
        ]
        small = min(range(len(tops)), key=held.__getitem__)
        if held[small] < least:
            beside = [i for i in (small - 1, small) if 0 <= i < len(valleys)]
            joined = max(beside, key=depth.__getitem__)
        else:
            joined = max(range(len(valleys)), key=depth.__getitem__)
            if depth[joined] <= VALLEY:
                break
        higher = max(tops[joined], tops[joined + 1], key=density.__getitem__)
        tops[joined : joined + 2] = [higher]
        del valleys[joined]
    return len(tops)


def _extremes(density: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the places of the peaks, and of the lowest point between each two."""
    tops = [
        i
        for i, here in enumerate(density)
        if (i == 0 or here > density[i - 1]) and (i + 1 == len(density) or here >= density[i + 1])
    ]
    valleys = [min(range(left, right), key=density.__getitem__) for left, right in pairwise(tops)]
    return tops, valleys
