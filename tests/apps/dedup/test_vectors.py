"""Every pair from the threshold on and no other, against the matrix of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apps.dedup.conftest import crowd, every_cosine
from asterisk.apps.dedup import vectors as module
from asterisk.apps.dedup.vectors import WIDEST, RowBuffer, Vectors, bound_vectors, compare
from asterisk.common.errors import UsageError
from benchmarks.dedup.pairs import pairs

ROWS = arrays.arrays(
    np.int8, st.tuples(st.integers(0, 12), st.integers(1, 9)), elements=st.integers(-127, 127)
)


def brute(vectors, threshold):
    cosines = every_cosine(vectors)
    i, j = np.nonzero(np.triu(cosines >= threshold, 1))
    return i, j, cosines[i, j]


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, data=st.data())
def test_pairs_are_those_of_brute_force_also_at_the_threshold(rows, data):
    vectors = Vectors(rows)
    every = np.unique(every_cosine(vectors)[np.triu_indices(len(rows), 1)])
    ties = every[every > 0].tolist()
    threshold = data.draw(st.sampled_from(ties) if ties else st.floats(0.1, 1))
    leading = data.draw(st.integers(1, 9))
    found, expected = pairs(vectors, threshold, leading=leading), brute(vectors, threshold)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    assert np.array_equal(found[2], expected[2])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("block", [7, 64, 2_048])
def test_blocks_and_threads_change_nothing(threads, block, monkeypatch):
    vectors = crowd(500)
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "FLAGS", 100)
    expected = brute(vectors, 0.9)
    assert len(expected[0]) > 500
    for found, wanted in zip(pairs(vectors, 0.9, threads=threads), expected, strict=True):
        assert np.array_equal(found, wanted)


def test_a_bound_is_never_below_the_cosine_and_mostly_decides():
    vectors = crowd(300, dim=256, spread=0.5)
    _, bounds = bound_vectors(vectors)
    assert bounds.shape == (300, 65)
    assert (bounds @ bounds.T >= every_cosine(vectors) - module.MARGIN).all()
    seen = 0

    def take(first, second):
        nonlocal seen
        seen += len(first)

    compare(bounds, 0.9, take)
    assert seen < 300 * 299 / 2 / 10


def test_a_row_of_zeros_is_near_nothing():
    found = pairs(Vectors(np.zeros((5, 4), np.int8)), 0.1)
    assert len(found[0]) == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_thread_raises_is_raised(threads, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 50)
    _, bounds = bound_vectors(crowd(200))

    def take(first, second):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(bounds, 0.5, take, threads=threads)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 3), "f4"), np.zeros(3, np.int8), np.zeros((2, WIDEST + 1), np.int8)],
    ids=["float32", "flat", "wide"],
)
def test_only_what_is_exact_is_taken(rows):
    with pytest.raises(UsageError):
        Vectors(rows)


def test_rows_beyond_the_limit_are_in_a_file_and_the_same():
    draw = np.random.default_rng(0)
    blocks = [draw.integers(-127, 128, (size, 6), np.int8) for size in (3, 1, 50, 7)]
    expected = np.concatenate(blocks)
    for limit in (0, 100, 10_000):
        rows = RowBuffer(np.int8, limit)
        for block in blocks:
            rows.append(block)
        found = rows.finish(6)
        assert np.array_equal(found, expected)
        assert found.flags.writeable == (limit > 1_000)
        rows.release()
        assert np.array_equal(found, expected)
