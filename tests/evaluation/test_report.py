"""Intervals of differences: nothing where nothing differs, and right as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.evaluation.report import Measured, averages, compare, difference
from asterisk.evaluation.tasks import Clusters, Means, draw


def scored(items, counts):
    return items.score(), items.resampled(counts)


def measured(task="a", group="g", symmetric=None, **values) -> Measured:
    it = Measured(task, "m", group, len(next(iter(values.values()))), symmetric)
    counts = draw(symmetric.task if symmetric else task, it.items, resamples=400, seed=0)
    for column, own in values.items():
        it.columns[column] = scored(Means(np.array(own, float)), counts)
    return it


RANDOM = np.random.default_rng(0)
BASE = (RANDOM.random(300) < 0.5).astype(float)
BETTER = np.maximum(BASE, RANDOM.random(300) < 0.3)


def test_identical_models_differ_by_exactly_nothing():
    row = compare([measured(x=BASE, y=BASE)], baseline="x")[0]
    found = row.cells["y"].difference
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert not found.significant
    assert row.cells["x"].difference is None


def test_a_better_model_is_seen_and_averaged():
    some = [measured("a", x=BASE, y=BETTER), measured("b", x=BASE, y=BETTER, z=BASE)]
    (mean,) = compare(averages(some), baseline="x")
    for row in (*compare(some, baseline="x"), mean):
        assert row.cells["y"].difference.significant
        assert row.cells["y"].difference.low > 0
    assert mean.cells["y"].score == pytest.approx(100 * BETTER.mean())
    assert "z" not in mean.cells  # it has not all of the group's tasks
    assert mean.items == 2
    alone = compare(some, baseline="x")[0].cells["y"].difference
    both = mean.cells["y"].difference
    assert both.high - both.low < alone.high - alone.low  # two sets say more than one


def test_intervals_cover_as_often_as_they_say():
    """Each of 200 samples of a population whose models differ by 0.1; a fixed share must miss."""
    random = np.random.default_rng(1)
    covered = 0
    for number in range(200):
        x = (random.random(200) < 0.5).astype(float)
        y = np.where(random.random(200) < 0.2, np.maximum(x, 1.0), x)  # +0.1 on average
        counts = draw(str(number), 200, resamples=300, seed=0)
        found = difference(scored(Means(y), counts), scored(Means(x), counts))
        covered += found.low <= 10 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_an_interval_holds_its_estimate_where_resamples_are_biased():
    """V-measure of a resample is too high: repeated items agree with themselves."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 60, 120)
    counts = draw("v", 120, resamples=300, seed=0)
    some = Measured("v", "V-measure", None, 120)
    for column, share in (("y", 0.8), ("x", 0.1)):
        own = np.where(random.random(120) < share, labels, random.integers(0, 60, 120))
        some.columns[column] = scored(Clusters(labels, (own,)), counts)
    gap = compare([some], baseline="x")[0].cells["y"].difference
    gaps = some.columns["y"][1] - some.columns["x"][1]
    assert np.percentile(gaps, 97.5) < gap.value  # what moving the interval is for
    assert gap.low < gap.value < gap.high


def test_asymmetric_is_compared_with_symmetric_and_with_the_teacher_alone():
    plain = measured("r", "retrieval", x=BASE, teacher=BETTER)
    some = [plain, measured("r, asymmetric", "retrieval, asymmetric", symmetric=plain, x=BETTER)]
    rows = compare(some, baseline="x", teacher="teacher")
    assert rows[1].cells["x"].asymmetric.significant
    assert rows[1].cells["x"].retention == pytest.approx(100)
    assert rows[0].cells["x"].retention == pytest.approx(100 * BASE.mean() / BETTER.mean())
    assert rows[0].cells["x"].asymmetric is None
    means = compare(averages(some), baseline="x", teacher="teacher")
    assert means[1].cells["x"].asymmetric == rows[1].cells["x"].asymmetric
