"""Samples to figures. Standard library only; times in ns go in, ms come out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from asterisk.bench.modes import modes

RESAMPLES = 1_000
ENOUGH_FOR_P99 = 1_000
FAR = 5.0  # times the median absolute deviation
NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """Duration of single calls, in ms, over all samples of all processes.

    ``low`` and ``high`` bound 95 % of the medians that other choices of processes would have given
    (bootstrap over process medians), and ``p50`` lies within; ``p99`` is None below 1,000 samples;
    ``outliers`` is the share of samples more than 5 median absolute deviations above the median.
    None is left out. ``modes`` above 1: the samples come from several ways of running (see
    `asterisk.bench.modes`), and the median may be a time that never occurs.
    """

    p50: float
    p90: float
    p95: float
    p99: float | None
    low: float
    high: float
    outliers: float
    samples: int
    modes: int = 1


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
        p99=quantile(every, 0.99) / NS_PER_MS if len(every) >= ENOUGH_FOR_P99 else None,
        low=low / NS_PER_MS,
        high=high / NS_PER_MS,
        outliers=sum(sample > middle + FAR * spread for sample in every) / len(every),
        samples=len(every),
        modes=modes(every),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values, read between neighbours as numpy does by default."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def interval(medians: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the middle 95 % of the median of ``medians`` drawn again with replacement."""
    draw = random.Random(seed)  # noqa: S311
    again = sorted(median(draw.choices(medians, k=len(medians))) for _ in range(RESAMPLES))
    return quantile(again, 0.025), quantile(again, 0.975)
