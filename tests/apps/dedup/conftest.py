from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import asterisk
from asterisk.apps.dedup.clustering import connect, split
from asterisk.apps.dedup.vectors import Vectors
from asterisk.common.vectors import to_int8

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "asterisk-256"


@pytest.fixture(scope="session")
def shipped():
    """The model that ships."""
    with asterisk.load(CHECKPOINT, threads=2) as runtime:
        yield runtime


def crowd(rows, dim=32, centres=20, spread=0.1, seed=0):
    """Vectors in heaps, so that there are pairs at every distance."""
    draw = np.random.default_rng(seed)
    middle = draw.standard_normal((centres, dim))
    found = middle[draw.integers(0, centres, rows)] + draw.standard_normal((rows, dim)) * spread
    return Vectors(to_int8(found.astype("f4")))


def clusters(vectors, threshold, numbers=None, **options):
    """Rows connected, and the groups split."""
    return split(connect(vectors, threshold, **options), vectors, threshold, numbers)


def every_cosine(vectors):
    """All of them, in float64 and whole numbers."""
    wide = vectors.rows.astype(np.int64)
    squares = np.maximum((wide**2).sum(1), 1).astype("f8")
    return (wide @ wide.T) / np.sqrt(np.multiply.outer(squares, squares))
