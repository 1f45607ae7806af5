"""The tests of significance, against scipy and against their own promises."""

from __future__ import annotations

import random
from statistics import median

import numpy as np
import pytest

from asterisk.bench.statistics import EXACT, holm, mann_whitney, ratio

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seed", range(20))
def test_exact_with_ties_is_the_share_of_all_arrangements(seed):
    """scipy's ``exact`` ignores ties; its permutation method goes through every arrangement."""
    draw = np.random.default_rng(seed)
    a, b = draw.integers(0, 4, draw.integers(2, 6)), draw.integers(0, 5, draw.integers(2, 6))
    every = stats.PermutationMethod(n_resamples=np.inf)
    found = stats.mannwhitneyu(a, b, method=every).pvalue
    assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(found, abs=1e-12)


def test_the_exact_and_the_normal_p_meet():
    draw = random.Random(0)
    a, b = ([draw.gauss(shift, 1) for _ in range(EXACT // 2)] for shift in (0, 0.4))
    assert mann_whitney(a, b) == pytest.approx(mann_whitney([*a, 0.1], [*b, 0.2]), rel=0.2)


def test_nine_apart_from_nine_is_the_rarest_arrangement():
    assert mann_whitney(range(9), range(9, 18)) == pytest.approx(2 / 48_620)
    assert mann_whitney([1] * 9, [1] * 9) == 1
    assert mann_whitney([1] * 80, [1] * 80) == 1
    assert mann_whitney([], [1]) == 1


def test_holm_is_the_stepwise_bound():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_ratio_is_of_medians_and_its_interval_holds_the_truth_19_times_in_20():
    draw = random.Random(1)
    held = 0
    for seed in range(200):
        old, new = ([draw.gauss(mean, 3) for _ in range(15)] for mean in (100, 110))
        found, (low, high) = ratio(old, new, seed)
        assert found == median(new) / median(old)
        held += low <= 1.1 <= high
    assert 182 <= held < 200
    assert ratio(old, new) == ratio(old, new)
    assert ratio([2.0], [3.0]) == (1.5, (1.5, 1.5))
