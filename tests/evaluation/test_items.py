"""Metrics over counted items, against SciPy and scikit-learn on the items written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, v_measure_score

from asterisk.evaluation.tasks import Clusters, Means, Precision, Ranks, draw

N = 60
random = np.random.default_rng(3)
GRADES = random.integers(0, 6, N).astype(float)  # ties on purpose
SCORES = np.round(random.normal(size=N), 1)
POSITIVE = random.random(N) < 0.4
CLASSES, RUNS = random.integers(0, 4, N), [random.integers(0, 5, N) for _ in range(2)]


def v_measures(drawn):
    return np.mean([v_measure_score(CLASSES[drawn], run[drawn]) for run in RUNS])


CASES = [
    (Means(GRADES), lambda drawn: GRADES[drawn].mean()),
    (Ranks(GRADES, SCORES), lambda drawn: spearmanr(GRADES[drawn], SCORES[drawn]).statistic),
    (
        Precision(POSITIVE, SCORES),
        lambda drawn: average_precision_score(POSITIVE[drawn], SCORES[drawn]),
    ),
    (Clusters(CLASSES, RUNS), v_measures),
]


@pytest.mark.parametrize(("items", "truth"), CASES, ids=lambda it: type(it).__name__)
def test_resamples_are_the_metric_of_what_was_drawn(items, truth):
    counts = draw("set", N, resamples=20, seed=0)
    expected = [100 * truth(np.repeat(np.arange(N), row)) for row in counts]
    assert items.resampled(counts) == pytest.approx(expected)


@pytest.mark.parametrize(("items", "truth"), CASES, ids=lambda it: type(it).__name__)
def test_every_item_once_is_the_score(items, truth):
    assert items.score() == pytest.approx(100 * truth(np.arange(N)))
    assert items.resampled(np.ones((1, N), int)) == pytest.approx([items.score()])


def test_draws_are_paired_by_name_and_seed():
    counts = draw("a", N, resamples=50, seed=0)
    assert (counts.sum(1) == N).all()
    assert np.array_equal(counts, draw("a", N, resamples=50, seed=0))
    assert not np.array_equal(counts, draw("b", N, resamples=50, seed=0))
    assert not np.array_equal(counts, draw("a", N, resamples=50, seed=1))


def test_degenerate_resamples_are_no_nan():
    counts = np.zeros((1, N), int)
    counts[0, int(np.flatnonzero(~POSITIVE)[0])] = N  # one item, N times
    for items, _ in CASES:
        assert np.isfinite(items.resampled(counts)).all()
    assert Ranks(np.ones(N), SCORES).score() == 0
