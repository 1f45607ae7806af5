"""A model's vectors as tasks see them: unit rows, whatever made and shortened them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require

Vectors = npt.NDArray[np.float32]
Rows = Any
"""Unit rows: float32 [n, d], or SciPy's sparse rows of that shape."""
PrecisionName = Literal["float32", "int8", "binary"]
BLOCK = 1_000  # queries whose similarities are held at once


class Space(Protocol):
    """Texts to rows that can be compared with each other."""

    def __call__(self, fit: Sequence[str], /, *lists: Sequence[str]) -> tuple[Rows, ...]:
        """Return the rows of each list; ``fit`` is what a space that learns may learn from."""


def unit(vectors: Vectors) -> Vectors:
    """Return rows of unit length, float32 [n, d]; a zero row stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    made: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return made


def shortened(vectors: Vectors, dim: int | None, precision: PrecisionName) -> Vectors:
    """Return what is left of float32 [n, d] after truncation and quantisation, as unit rows.

    Quantised rows are widened again, which keeps their cosines as `similarity` has them and lets
    a classifier see what a reader of the small vectors would.
    """
    from asterisk.common.vectors import to_binary, to_int8, truncate

    kept = vectors if dim is None else truncate(vectors, dim)
    if precision == "int8":
        return unit(to_int8(kept).astype(np.float32))
    if precision == "binary":
        bits = np.unpackbits(to_binary(kept), axis=1, count=kept.shape[1])
        return unit(bits.astype(np.float32) * 2 - 1)
    return unit(kept)


def tfidf(fit: Sequence[str], /, *lists: Sequence[str]) -> tuple[Rows, ...]:
    """Return rows in the space of TF-IDF: scikit-learn's words, 1 + log of counts, of ``fit``."""
    text = require("sklearn.feature_extraction.text", "eval")
    vectorizer = text.TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    try:
        vectorizer.fit(fit)
    except ValueError:  # no word of two letters anywhere
        vectorizer.set_params(token_pattern=r"(?u)\S+").fit(fit)  # noqa: S106
    return tuple(vectorizer.transform(texts) for texts in lists)


def paired(first: Rows, second: Rows) -> npt.NDArray[np.float64]:
    """Return the cosine of each row with its counterpart, float64 [n]."""
    if isinstance(first, np.ndarray):
        return np.asarray(np.einsum("nd,nd->n", first, second), np.float64)
    return np.asarray(first.multiply(second).sum(1), np.float64).ravel()


def nearest(
    queries: Rows, documents: Rows, count: int
) -> Iterator[tuple[npt.NDArray[np.intp], Vectors]]:
    """Yield, a block of queries at a time, the nearest documents and their cosines [q, count].

    Nearest first, the earlier document first where cosines are equal.
    """
    total = documents.shape[0]
    count = min(count, total)
    for start in range(0, queries.shape[0], BLOCK):
        similar = queries[start : start + BLOCK] @ documents.T
        similar = similar if isinstance(similar, np.ndarray) else similar.toarray()
        near = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similar, near, 1)
        order = np.lexsort((near, -values), axis=1)
        yield np.take_along_axis(near, order, 1), np.take_along_axis(values, order, 1)
