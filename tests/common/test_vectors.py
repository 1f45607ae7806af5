"""Smaller vectors, against sentence-transformers, scipy's distances and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist

from asterisk.common import vectors
from asterisk.common.errors import UsageError
from asterisk.common.vectors import similarity, to_binary, to_int8, truncate

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(1, 20)), elements=FINITE
)
BAD = [
    [[1.0, 2.0]],
    np.ones((2, 3)),
    np.ones((2, 3), np.int8),
    np.ones(3, np.float32),
    np.ones((2, 3, 4), np.float32),
    np.ones((2, 0), np.float32),
    np.full((2, 3), np.nan, np.float32),
    np.full((2, 3), np.inf, np.float32),
]


def some(rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype("f4")


def signs(rows):
    return np.where(rows > 0, 1.0, -1.0)


def test_bits_are_those_of_sentence_transformers():
    quantization = pytest.importorskip("sentence_transformers.quantization")
    rows = some(20, 256)
    assert np.array_equal(to_binary(rows), quantization.quantize_embeddings(rows, "ubinary"))


@pytest.mark.parametrize("dim", [3, 8, 61, 64, 256])
@pytest.mark.parametrize("words", [True, False], ids=["counted", "by table"])
def test_every_pairing_is_the_cosine(dim, words, monkeypatch):
    if not words:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    queries, documents = some(7, dim), some(11, dim, 1)
    kinds = {
        "float32": (lambda rows: rows, lambda rows: rows),
        "int8": (to_int8, lambda rows: to_int8(rows).astype("f8")),
        "bits": (to_binary, signs),
    }
    for left, left_plain in kinds.values():
        for right, right_plain in kinds.values():
            found = similarity(left(queries), right(documents), dim=dim)
            expected = 1 - cdist(left_plain(queries), right_plain(documents), "cosine")
            assert found.dtype == np.float32
            assert np.abs(found - expected).max() < 1e-6


def test_bits_against_bits_is_the_hamming_distance():
    queries, documents = some(5, 64), some(9, 64, 1)
    hamming = cdist(queries > 0, documents > 0, "hamming")
    expected = (1 - 2 * hamming).astype("f4")
    assert np.array_equal(similarity(to_binary(queries), to_binary(documents)), expected)


def test_blocks_change_nothing(monkeypatch):
    queries, documents = some(3, 32), some(50, 32, 1)
    whole = [similarity(queries, kind(documents)) for kind in (to_int8, to_binary)]
    monkeypatch.setattr(vectors, "BLOCK", 7)
    parts = [similarity(queries, kind(documents)) for kind in (to_int8, to_binary)]
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)


@given(MATRICES)
@settings(deadline=None)
def test_int8_is_within_half_a_step(rows):
    small = to_int8(rows)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    assert small.dtype == np.int8
    assert small.shape == rows.shape
    assert np.array_equal(np.abs(small.astype(int)).max(axis=1), 127 * (largest[:, 0] > 0))
    scaled = rows.astype("f8") / np.where(largest == 0, 1, largest) * 127
    assert np.abs(small - scaled).max(initial=0) <= 0.5 + 1e-4
    assert np.array_equal(to_int8(-rows), -small)


@given(MATRICES, st.integers(1, 20))
@settings(deadline=None)
def test_whatever_the_size_of_the_numbers(rows, dim):
    dim = min(dim, rows.shape[1])
    short = truncate(rows, dim)
    lengths = np.linalg.norm(short.astype("f8"), axis=1)
    some_left = rows[:, :dim].any(axis=1)
    assert np.abs(lengths - some_left).max(initial=0) < 1e-5
    itself = similarity(rows, rows)
    assert itself.shape == (len(rows), len(rows))
    assert np.abs(np.diag(itself) - rows.any(axis=1)).max(initial=0) < 1e-5


def test_zero_vectors_are_like_nothing():
    zero, rows = np.zeros((1, 16), np.float32), some(4, 16)
    for documents in (rows, to_int8(rows), to_binary(rows)):
        assert not similarity(zero, documents).any()
    assert not similarity(to_int8(zero), rows).any()


def test_no_rows_are_no_error():
    none, rows = some(0, 16), some(3, 16)
    assert to_int8(none).shape == (0, 16)
    assert to_binary(none).shape == (0, 2)
    assert similarity(rows, to_binary(none)).shape == (3, 0)
    assert similarity(to_binary(none), to_binary(rows)).shape == (0, 3)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: str(getattr(bad, "shape", "list")))
def test_what_is_no_matrix_of_floats_is_refused(bad):
    for call in (to_int8, to_binary, lambda rows: truncate(rows, 1)):
        with pytest.raises(UsageError, match=r"^vectors "):
            call(bad)


@pytest.mark.parametrize("dim", [0, -1, 17, 2.0, "8"])
def test_dimensions_that_are_not_there(dim):
    with pytest.raises(UsageError, match="dim must be 1 to 16"):
        truncate(some(2, 16), dim)


@pytest.mark.parametrize(
    ("queries", "documents", "dim"),
    [
        (some(2, 16), some(2, 15), None),
        (some(2, 16), to_int8(some(2, 15)), None),
        (some(2, 17), to_binary(some(2, 16)), None),
        (some(2, 16), some(2, 16), 8),
        (to_binary(some(2, 16)), to_binary(some(2, 24)), None),
        (to_binary(some(2, 16)), to_binary(some(2, 16)), 17),
        (to_binary(some(2, 16)), to_binary(some(2, 16)), 16.0),
        (some(2, 16).astype("f8"), some(2, 16), None),
        (some(2, 16), some(2, 16).astype("i4"), None),
        (some(2, 16)[0], some(2, 16), None),
        (some(2, 16), [[1.0] * 16], None),
        (some(2, 16), np.full((2, 16), np.nan, np.float32), None),
    ],
)
def test_sides_that_do_not_fit(queries, documents, dim):
    with pytest.raises(UsageError):
        similarity(queries, documents, dim=dim)
