"""Thresholds for a precision: counted by hand, by scikit-learn, and what ships."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve

from asterisk.apps.dedup.calibration import (
    PRECISION,
    THRESHOLD,
    Point,
    choose,
    count_points,
    default_threshold,
    judged_cosines,
)
from asterisk.apps.dedup.calibration import shipped_points as shipped_for
from asterisk.common.errors import InputError, UsageError


def test_points_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    cosines = draw.integers(0, 40, 300) / 40  # with ties
    same = draw.random(300) < cosines
    precision, recall, thresholds = precision_recall_curve(same, cosines)
    points = count_points(cosines.tolist(), same.tolist())
    assert [point.threshold for point in points] == thresholds.tolist()
    assert np.allclose([point.precision for point in points], precision[:-1])
    assert np.allclose([point.recall for point in points], recall[:-1])


def test_the_interval_is_wilsons():
    point = Point(0.9, 45, 5, 3)
    assert np.allclose(point.interval(), tuple(binomtest(45, 50).proportion_ci(method="wilson")))


def test_the_lowest_threshold_from_which_on_the_precision_holds():
    points = [Point(0.7, 99, 1, 0), Point(0.8, 50, 20, 9), Point(0.9, 48, 2, 9), Point(1, 2, 9, 9)]
    assert choose(points, 0.95, "here").threshold == 0.9  # 0.7 has it, but 0.8 has not
    assert choose(points, 0.5, "here").threshold == 0.7


def test_what_is_not_reached_is_refused_with_the_best_there_is():
    points = [Point(0.8, 50, 20, 9), Point(0.9, 48, 2, 9), Point(0.99, 3, 0, 9)]
    with pytest.raises(UsageError, match=r"best there is is 0\.960, from --threshold 0\.900"):
        choose(points, 0.99, "here")  # 3 pairs are no evidence
    with pytest.raises(UsageError, match="at no threshold"):
        choose(points[2:], 0.5, "here")


def test_what_ships_is_for_the_model_that_ships(shipped_points):
    thresholds = [point.threshold for point in shipped_points]
    assert thresholds == sorted(thresholds)
    every = {point.right + point.missed for point in shipped_points}
    assert len(every) == 1
    assert every.pop() > 5_000
    point = choose(shipped_points, 0.95, "shipped")
    assert 0.7 < point.threshold < 0.95
    assert point.recall > 0.8
    assert choose(shipped_points, 0.99, "shipped").threshold > point.threshold


def test_a_model_has_a_threshold_of_its_own(shipped, shipped_points):
    assert default_threshold("0" * 64) == THRESHOLD
    assert default_threshold(shipped.fingerprint) == choose(shipped_points, PRECISION, "").threshold
    by_hand = [p.threshold for p in shipped_points if p.right >= PRECISION * (p.right + p.wrong)]
    assert default_threshold(shipped.fingerprint) in by_hand


@pytest.fixture
def shipped_points(shipped):
    return shipped_for(shipped.fingerprint)


def test_another_model_has_none():
    with pytest.raises(UsageError, match="--labelled"):
        shipped_for("0" * 64)


def test_labelled_pairs_have_the_cosine_they_are_compared_by(shipped, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("\ufeff1\tA red car.\ta RED car.\r\n\n0\tA red car.\tThe sea is deep.\n")
    cosines, same = judged_cosines(path, shipped)
    assert same == [True, False]
    assert cosines[0] == 1.0
    assert cosines[1] < 0.7


@pytest.mark.parametrize("line", ["2\ta\tb", "1\ta", "1\ta\tb\tc", "1\t\tb", "yes\ta\tb", "1 a b"])
def test_bad_pairs_are_named(line, tmp_path, shipped):
    path = tmp_path / "pairs.tsv"
    path.write_text(f"1\ta\tb\n{line}\n")
    with pytest.raises(InputError, match=r"pairs\.tsv, line 2"):
        judged_cosines(path, shipped)


@pytest.mark.parametrize("content", [b"", b"1\t\xff\tb\n", b"1\t\xe2\x80\x8b\tb\n", None])
def test_files_without_pairs(content, tmp_path, shipped):
    path = tmp_path / "pairs.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="pairs"):
        judged_cosines(path, shipped)
