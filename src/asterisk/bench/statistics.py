"""Whether two sets of processes differ, and by how much. On the host only: it needs scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median

from asterisk.bench.summary import RESAMPLES
from asterisk.common.plugins import require

ENOUGH = 9  # processes a side for a test
EXACT = 100  # values of both sides together up to which every arrangement is counted


def ratio(
    old: Sequence[float], new: Sequence[float], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the median of ``new`` over that of ``old``, and the middle 95 % of what might be.

    A value a process, positive. The interval is a percentile bootstrap: the processes of each side
    drawn again with replacement, 1,000 times, the same for the same ``seed``.
    """
    np = require("numpy", "bench")
    draw = np.random.default_rng(seed)
    # scipy.stats.bootstrap refuses a side of one process.
    above, below = (np.median(draw.choice(side, (RESAMPLES, len(side))), 1) for side in (new, old))
    low, high = np.quantile(above / below, [0.025, 0.975]).tolist()
    return median(new) / median(old), (low, high)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney U test of two independent samples.

    Exact up to 100 values: the share of all ways to choose ``len(a)`` of them, ties and all, whose
    rank sum is as far out. Above that scipy's normal approximation, corrected for ties and
    continuity. MissingExtra without scipy.
    """
    stats = require("scipy.stats", "bench")
    if not a or not b:
        return 1.0
    if len(a) + len(b) > EXACT:
        return float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
    # scipy's exact method takes no ties, and its permutations are too many from 12 a side on.
    # Here the choices are counted by their sum, each count in a slot of one long integer: adding a
    # rank to every choice is a shift. Doubled ranks are whole numbers.
    ranks = [int(2 * rank) for rank in stats.rankdata([*a, *b])]
    slot = len(ranks) + 1  # bits: there are fewer than 2^n choices
    choices = [1] + [0] * len(a)
    for done, rank in enumerate(ranks, 1):
        for count in range(min(done, len(a)), 0, -1):
            choices[count] += choices[count - 1] << rank * slot
    observed, ones = sum(ranks[: len(a)]), (1 << slot) - 1
    # 2^slot is 1 modulo 2^slot - 1, so that the remainder is the sum of the slots.
    least = (choices[-1] & ((1 << (observed + 1) * slot) - 1)) % ones
    most = (choices[-1] >> observed * slot) % ones
    return min(1.0, 2 * min(least, most) / math.comb(len(ranks), len(a)))


def holm(ps: Sequence[float]) -> list[float]:
    """Return each p adjusted for all of them being looked at (Holm, 1979), in the order given.

    At most 5 % of families without any difference have one adjusted p below 0.05.
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    steps = (min(1.0, (len(ps) - done) * ps[place]) for done, place in enumerate(order))
    adjusted = dict(zip(order, accumulate(steps, max), strict=True))
    return [adjusted[place] for place in range(len(ps))]
