"""Fidelity figures against vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.evaluation.fidelity import compare


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
