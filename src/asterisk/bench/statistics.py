"""Whether two sets of processes differ, and by how much. Standard library only."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import groupby
from statistics import median

from asterisk.bench.summary import RESAMPLES, quantile

ENOUGH = 9  # processes a side for a test
EXACT = 100  # values of both sides together up to which every arrangement is counted


def ratio(
    old: Sequence[float], new: Sequence[float], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the median of ``new`` over that of ``old``, and the middle 95 % of what might be.

    A value a process, positive. The interval is a percentile bootstrap: the processes of each side
    drawn again with replacement, 1,000 times, the same for the same ``seed``.
    """
    draw = random.Random(seed)  # noqa: S311
    again = sorted(
        median(draw.choices(new, k=len(new))) / median(draw.choices(old, k=len(old)))
        for _ in range(RESAMPLES)
    )
    return median(new) / median(old), (quantile(again, 0.025), quantile(again, 0.975))


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney U test of two independent samples.

    Exact up to 100 values: the share of all ways to choose ``len(a)`` of them, ties and all, whose
    rank sum is as far out. Above that the normal approximation, corrected for ties and continuity
    (Mann and Whitney, 1947).
    """
    if not a or not b:
        return 1.0
    ranks = _doubled_ranks([*a, *b])
    observed = sum(ranks[: len(a)])
    if len(ranks) <= EXACT:
        return _exact(ranks, len(a), observed)
    return _normal(ranks, len(a), observed)


def holm(ps: Sequence[float]) -> list[float]:
    """Return each p adjusted for all of them being looked at (Holm, 1979), in the order given.

    At most 5 % of families without any difference have one adjusted p below 0.05.
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, largest = [0.0] * len(ps), 0.0
    for done, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - done) * ps[place]))
        adjusted[place] = largest
    return adjusted


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value, ties averaged: doubled they are whole numbers."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, before = [0] * len(values), 0
    for _, tied in groupby(order, key=values.__getitem__):
        places = list(tied)
        for place in places:
            ranks[place] = 2 * before + len(places) + 1
        before += len(places)
    return ranks


def _exact(ranks: Sequence[int], size: int, observed: int) -> float:
    """Count the choices of ``size`` ranks by their sum, each count in a slot of one long integer.

    Adding a rank to every choice is then a shift, and no count can reach its neighbour's slot.
    """
    slot = len(ranks) + 1  # bits: there are fewer than 2^n choices
    choices = [1] + [0] * size
    for done, rank in enumerate(ranks, 1):
        for count in range(min(done, size), 0, -1):
            choices[count] += choices[count - 1] << rank * slot
    every = choices[size]
    total = math.comb(len(ranks), size)
    least = _sum_of_slots(every & ((1 << (observed + 1) * slot) - 1), slot)
    most = _sum_of_slots(every >> observed * slot, slot)
    return min(1.0, 2 * min(least, most) / total)


def _sum_of_slots(packed: int, slot: int) -> int:
    # 2^slot is 1 modulo 2^slot - 1, and the sum of all slots is smaller than that.
    return packed % ((1 << slot) - 1)


def _normal(ranks: Sequence[int], size: int, observed: int) -> float:
    every, other = len(ranks), len(ranks) - size
    u = observed / 2 - size * (size + 1) / 2
    ties = sum(
        count**3 - count for count in (len(list(tied)) for _, tied in groupby(sorted(ranks)))
    )
    variance = size * other / 12 * (every + 1 - ties / (every * (every - 1)))
    if variance <= 0:
        return 1.0
    far = max(0.0, abs(u - size * other / 2) - 0.5)
    return math.erfc(far / math.sqrt(2 * variance))
