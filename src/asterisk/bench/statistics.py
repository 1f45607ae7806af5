"""From samples to figures, and whether two sets of processes differ.

`summarise` needs the standard library only: it runs between measurements, in a process that must
not map numpy. The tests of significance need scipy, on the host alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from statistics import median

from asterisk.common.plugins import require

RESAMPLES = 1_000
MIN_FOR_P99 = 1_000  # samples
OUTLIER = 5.0  # times the median absolute deviation
NS_PER_MS = 1e6

# Peaks in the shape of the samples.
MIN_FOR_MODES = 50  # samples below which no shape is to be seen
GRID = 200
TAIL = 0.01  # share left out at either end: outliers are not a way of running
NARROW = 0.01  # least width of the kernel, relative: closer times are not two
REACH = 4.0  # widths at which the kernel ends
VALLEY = 0.5  # of the lower peak, above which two peaks are one
SHARE = 0.1  # of the samples that a peak has at least

MIN_PROCESSES = 9  # a side for a test
MAX_EXACT = 100  # values of both sides together up to which every arrangement is counted


@dataclass(frozen=True, slots=True)
class Latency:
    """Duration of single calls, in ms, over all samples of all processes; none is left out."""

    p50: float
    p90: float
    p95: float
    p99: float | None  # None below 1,000 samples
    # 95 % of the medians that other choices of processes would have given; p50 lies within.
    low: float
    high: float
    outliers: float  # share of samples above the median by 5 median absolute deviations
    samples: int
    modes: int = 1  # above 1 the median may be a time that never occurs


def summarise(processes: Sequence[Sequence[int]]) -> Latency:
    """Summarise the samples of one cell, in ns, one list a process; none empty."""
    every = sorted(chain.from_iterable(processes))
    middle = quantile(every, 0.5)
    spread = median(abs(sample - middle) for sample in every)
    low, high = interval([median(process) for process in processes])
    # One process may have taken more samples than another, and so draw the common median to itself.
    low, high = min(low, middle), max(high, middle)
    return Latency(
        p50=middle / NS_PER_MS,
        p90=quantile(every, 0.9) / NS_PER_MS,
        p95=quantile(every, 0.95) / NS_PER_MS,
        p99=quantile(every, 0.99) / NS_PER_MS if len(every) >= MIN_FOR_P99 else None,
        low=low / NS_PER_MS,
        high=high / NS_PER_MS,
        outliers=sum(sample > middle + OUTLIER * spread for sample in every) / len(every),
        samples=len(every),
        modes=modes(every),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values, interpolated between neighbours as numpy does."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def interval(medians: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the middle 95 % of the median of ``medians`` drawn again with replacement."""
    draw = random.Random(seed)  # noqa: S311
    again = sorted(median(draw.choices(medians, k=len(medians))) for _ in range(RESAMPLES))
    return quantile(again, 0.025), quantile(again, 0.975)


def modes(samples: Sequence[float]) -> int:
    """Return how many separate peaks the samples have; 1 where there are too few to see any.

    Peaks of a kernel density estimate of their logarithms (Silverman's width). Of two, where a
    processor changes its clock say, the median lies between, and means neither.
    """
    if len(samples) < MIN_FOR_MODES or min(samples) <= 0:
        return 1
    inner = sorted(map(math.log, samples))
    cut = int(TAIL * len(inner))
    inner = inner[cut : len(inner) - cut]
    middle = sum(inner) / len(inner)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in inner) / len(inner))
    quarter = len(inner) // 4
    spread = (inner[-1 - quarter] - inner[quarter]) / 1.34
    # Of two modes both are wide: less than half Silverman's width keeps their valley visible.
    width = 0.4 * (min(deviation, spread) or deviation) * float(len(inner) ** -0.2)
    width = max(width, NARROW)
    low, high = inner[0] - width, inner[-1] + width
    step = (high - low) / (GRID - 1)
    counts = [0] * GRID
    for value in inner:
        counts[round((value - low) / step)] += 1
    reach = int(REACH * width / step) + 1
    kernel = [math.exp(-0.5 * (offset * step / width) ** 2) for offset in range(reach + 1)]
    density = [
        sum(count * kernel[abs(i - j)] for j, count in enumerate(counts) if abs(i - j) <= reach)
        for i in range(GRID)
    ]
    return _peaks(counts, density)


def _peaks(counts: Sequence[int], density: Sequence[float]) -> int:
    """Join peaks with the neighbour of the shallowest valley until every one of them counts."""
    padded = [-1.0, *density, -1.0]
    tops = [i for i in range(GRID) if padded[i] < density[i] >= padded[i + 2]]
    valleys = [min(range(left, right), key=density.__getitem__) for left, right in pairwise(tops)]
    while valleys:
        sizes = [sum(counts[left:right]) for left, right in pairwise([0, *valleys, GRID])]
        depth = [
            density[valley] / min(density[left], density[right])
            for valley, (left, right) in zip(valleys, pairwise(tops), strict=True)
        ]
        small = min(range(len(tops)), key=sizes.__getitem__)
        sides = range(len(valleys))
        if sizes[small] < SHARE * sum(counts):
            sides = sides[max(0, small - 1) : small + 1]
        elif max(depth) <= VALLEY:
            break
        joined = max(sides, key=depth.__getitem__)
        tops[joined : joined + 2] = [max(tops[joined : joined + 2], key=density.__getitem__)]
        del valleys[joined]
    return len(tops)


def ratio(
    old: Sequence[float], new: Sequence[float], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the median of ``new`` over that of ``old``, and its 95 % confidence interval.

    A percentile bootstrap of one positive value a process, the same for the same ``seed``.
    """
    np = require("numpy", "bench")
    draw = np.random.default_rng(seed)
    # scipy.stats.bootstrap refuses a side of one process.
    above, below = (np.median(draw.choice(side, (RESAMPLES, len(side))), 1) for side in (new, old))
    low, high = np.quantile(above / below, [0.025, 0.975]).tolist()
    return median(new) / median(old), (low, high)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney U test; MissingExtra without scipy.

    Exact up to 100 values, ties and all: the share of all ways to choose ``len(a)`` of them whose
    rank sum is as far out. Above that scipy's normal approximation.
    """
    stats, np = require("scipy.stats", "bench"), require("numpy", "bench")
    if not a or not b:
        return 1.0
    if len(a) + len(b) > MAX_EXACT:
        return float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
    # scipy's exact method takes no ties, and its permutations are too many from 12 a side on. Here
    # the choices are counted by how many values they have and their sum of doubled ranks.
    ranks = [int(2 * rank) for rank in stats.rankdata([*a, *b])]
    choices = np.zeros((len(a) + 1, sum(ranks) + 1))
    choices[0, 0] = 1
    for rank in ranks:
        choices[1:, rank:] += choices[:-1, :-rank]
    observed, ways = sum(ranks[: len(a)]), choices[-1]
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum())
    return min(1.0, float(2 * tail / ways.sum()))


def holm(ps: Sequence[float]) -> list[float]:
    """Return each p adjusted for the number of tests (Holm, 1979), in the order given."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    steps = (min(1.0, (len(ps) - rank) * ps[i]) for rank, i in enumerate(order))
    adjusted = dict(zip(order, accumulate(steps, max), strict=True))
    return [adjusted[i] for i in range(len(ps))]
