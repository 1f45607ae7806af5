"""Fidelity figures against vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.evaluation.fidelity import (
    DUPLICATE,
    compare,
    compare_pairs,
    flipped,
    spearman,
    stability,
)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(200, 32)).astype("f4")


def test_equal_vectors_agree_in_everything(vectors):
    found = compare(vectors, 3 * vectors)
    assert found.texts == 200
    assert found.cosine_min == pytest.approx(1)
    assert found.overlap_at_10 == 1


def test_one_turned_vector_is_the_minimum(vectors):
    turned = vectors.copy()
    turned[7] = -turned[7]
    found = compare(turned, vectors)
    assert found.cosine_min == pytest.approx(-1)
    assert found.cosine_mean == pytest.approx(1 - 2 / 200)
    assert found.cosine_p1 > 0.9
    assert found.overlap_at_10 < 1


def test_unrelated_vectors_share_neighbours_by_chance_only(vectors):
    other = np.random.default_rng(1).normal(size=vectors.shape).astype("f4")
    assert compare(other, vectors).overlap_at_10 < 0.15


def test_overlap_counts_the_ten_nearest():
    """On a circle the neighbours are those beside; turning by one place shares what it must."""
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1).astype("f4")
    assert compare(circle, circle).overlap_at_10 == 1
    every_second = circle[np.r_[0:100:2, 1:100:2]]
    assert compare(every_second, circle).overlap_at_10 < 0.6


@pytest.mark.parametrize("distinct", [3, 20, 10**9])
def test_spearman_is_scipy_s_with_and_without_ties(distinct):
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(distinct)
    for size in (2, 3, 10, 500):
        a, b = random.integers(0, distinct, (2, size)).astype(float)
        b += a  # related, so that the figure is not about zero
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


def test_pairs_are_all_pairs(vectors):
    stats = pytest.importorskip("scipy.stats")
    noisy = vectors + np.random.default_rng(1).normal(0, 0.3, vectors.shape).astype("f4")
    some, others = (
        [
            x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
            for i in range(len(x))
            for j in range(i)
        ]
        for x in (noisy.astype("f8"), vectors.astype("f8"))
    )
    found = compare_pairs(noisy, vectors)
    assert found.spearman == pytest.approx(stats.spearmanr(some, others)[0], abs=1e-9)
    assert 0.5 < found.spearman < 1
    assert compare_pairs(vectors, 3 * vectors).spearman == pytest.approx(1)


def test_no_order_is_no_agreement():
    assert spearman(np.ones(5), np.arange(5.0)) == 0


def test_flipped_is_the_share_of_duplicates_that_only_one_finds():
    theirs = np.array([0.9, 0.8, 0.75, 0.1, 0.2, 0.3])
    ours = np.array([0.9, 0.8, 0.65, 0.1, 0.71, 0.3])
    assert flipped(ours, theirs) == flipped(theirs, ours) == 2 / 4
    assert flipped(theirs, theirs) == 0
    assert flipped(np.array([DUPLICATE]), np.array([0.0])) == 1
    assert flipped(np.zeros(3), np.zeros(3)) == 0


def test_memory_has_a_bound(monkeypatch, vectors):
    monkeypatch.setattr("asterisk.evaluation.fidelity.PAIRED", 50)
    changed = vectors.copy()
    changed[50:] = 1
    assert compare_pairs(changed, vectors).spearman == pytest.approx(1)
    changed[40:50] *= np.arange(32)
    assert compare_pairs(changed, vectors).spearman < 0.99


def test_stability_is_the_text_that_its_neighbours_change_most(vectors):
    listed = 2 * vectors
    assert stability(vectors, listed) == pytest.approx(1)
    listed[3] = 0
    listed[3, :2] = [-vectors[3, 1], vectors[3, 0]]
    assert stability(vectors, listed) == pytest.approx(0, abs=1e-7)
    for nothing in (0, np.nan):
        listed[3] = nothing
        assert stability(vectors, listed) == -1
