"""Statistics on samples whose figures are known, never on the clock."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.bench.summary import interval, quantile, summarise

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
