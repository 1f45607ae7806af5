"""Figures on samples whose answer is known, and the tests of significance against scipy."""

from __future__ import annotations

import random
from statistics import median

import numpy as np
import pytest

from asterisk.bench.statistics import (
    MAX_EXACT,
    holm,
    interval,
    mann_whitney,
    modes,
    quantile,
    ratio,
    summarise,
)

MS = 1_000_000


def test_figures_are_over_all_samples_of_all_processes():
    figures = summarise([[n * MS for n in range(1, 51)], [n * MS for n in range(51, 102)]])
    assert (figures.p50, figures.p90, figures.p95) == (51, 91, 96)
    assert figures.samples == 101
    assert figures.p99 is None


def test_p99_needs_a_thousand_samples():
    assert summarise([list(range(1, 1001))]).p99 == pytest.approx(990.01 / MS)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("size", [1, 2, 7, 200])
def test_quantiles_are_numpys(share, size):
    values = np.sort(np.random.default_rng(size).normal(size=size))
    assert quantile(values.tolist(), share) == pytest.approx(np.quantile(values, share))


def test_interval_lies_within_the_process_medians_and_repeats():
    low, high = interval([3.0, 1.0, 2.0])
    assert 1.0 <= low <= 2.0 <= high <= 3.0
    assert interval([3.0, 1.0, 2.0]) == (low, high)
    assert interval([2.0]) == (2.0, 2.0)


def test_outliers_are_counted_and_kept():
    figures = summarise([[100 * MS + n for n in range(99)] + [900 * MS]])
    assert figures.outliers == 0.01
    assert figures.samples == 100


def test_the_interval_holds_the_median_of_all_samples():
    figures = summarise([[10 * MS] * 90, *([(20 + n) * MS] * 10 for n in range(8))])
    assert figures.p50 == 10
    assert figures.low <= figures.p50 <= figures.high


@pytest.mark.parametrize(("processes", "least", "most"), [(3, 0.68, 0.82), (5, 0.90, 0.97)])
def test_how_often_the_interval_holds_the_truth(processes, least, most):
    """The median of n lies outside their range once in 2**(n - 1): with 3, one time in four."""
    random = np.random.default_rng(processes)
    drawn = random.normal(size=(150, processes)).tolist()
    held = [low <= 0 <= high for low, high in map(interval, drawn)]
    assert least < np.mean(held) < most


SHAPES = {
    "normal": lambda random, n: random.normal(100, 3, n),
    "wide": lambda random, n: random.normal(100, 15, n),
    "skewed": lambda random, n: random.lognormal(0, 0.3, n),
    "flat": lambda random, n: random.uniform(90, 110, n),
    "long tail": lambda random, n: 100 + 5 * random.pareto(1.5, n),
    "1 % apart": lambda random, n: random.choice([100, 101], n) + random.normal(0, 0.1, n),
    "3 % far away": lambda random, n: (
        np.where(random.random(n) < 0.03, 150, 100) + random.random(n)
    ),
}
TWO = {
    "20 % apart": lambda random, n: random.choice([100, 120], n) + random.normal(0, 3, n),
    "10 % apart": lambda random, n: random.choice([100, 110], n) + random.normal(0, 2, n),
    "a fifth of them": lambda random, n: (
        np.where(random.random(n) < 0.2, 120, 100) + random.normal(0, 3, n)
    ),
    "twice as long": lambda random, n: random.choice([1, 2], n) * random.normal(100, 5, n),
}
RUNS = 20


def found(shape, n=600):
    return [modes((1e5 * shape(np.random.default_rng(k), n)).tolist()) for k in range(RUNS)]


@pytest.mark.parametrize("name", SHAPES)
def test_one_mode_is_one(name):
    assert sum(count > 1 for count in found(SHAPES[name])) <= RUNS * 0.05


@pytest.mark.parametrize("name", TWO)
def test_two_modes_are_two(name):
    assert sum(count == 2 for count in found(TWO[name])) >= RUNS * 0.95


def test_three_modes_and_degenerate_samples():
    random = np.random.default_rng(1)
    assert modes((random.choice([100, 130, 170], 900) + random.normal(0, 2, 900)).tolist()) == 3
    assert modes([5] * 1000) == 1
    assert modes([5] * 500 + [10] * 500) == 2
    assert modes([5, 10] * 10) == 1  # too few to tell
    assert modes([0] * 100) == 1


def test_a_process_that_ran_slower_is_flagged():
    random = np.random.default_rng(2)
    runs = [(random.normal(at, 0.02, 300) * MS).astype(int).tolist() for at in (1, 1, 1.3)]
    assert summarise(runs).modes == 2
    assert summarise(runs[:2]).modes == 1


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
    a, b = ([draw.gauss(shift, 1) for _ in range(MAX_EXACT // 2)] for shift in (0, 0.4))
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
    for seed in range(100):
        old, new = ([draw.gauss(mean, 3) for _ in range(15)] for mean in (100, 110))
        found, (low, high) = ratio(old, new, seed)
        assert found == median(new) / median(old)
        held += low <= 1.1 <= high
    assert 91 <= held < 100
    assert ratio(old, new) == ratio(old, new)
    assert ratio([2.0], [3.0]) == (1.5, (1.5, 1.5))
