"""Vectors in fewer bytes: the first dimensions only, a byte a component, or a bit a component.

An embedding of 256 float32 takes 1,024 bytes; as int8 256, as bits 32. `similarity` compares all
three, in any pairing. The dimensions of this project's space are ordered by variance, which is why
the first ones do (Matryoshka-like) without training for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import UsageError, integer, one_of

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]
Bits = npt.NDArray[np.uint8]
Vectors = Floats | Bytes | Bits

PRECISIONS = ("float32", "int8", "binary", "ubinary")
LARGEST = 127  # the same to both sides of zero, so that negating a vector is exact
BLOCK = 4_096  # rows widened to float32 at a time: small documents must not become large ones
_LEAST = np.finfo(np.float32).smallest_subnormal
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def truncate(vectors: Floats, dim: int) -> Floats:
    """Return the first ``dim`` components of float32 [n, d], unit length again, float32 [n, dim].

    A zero vector stays zero. UsageError unless 1 <= dim <= d.
    """
    size = _checked(vectors).shape[1]
    return _unit(vectors[:, : integer("dim", dim, 1, size)])


def to_int8(vectors: Floats) -> Bytes:
    """Return float32 [n, d] as int8 [n, d], each row scaled so that its largest magnitude is 127.

    A zero vector stays zero. UsageError for other dtypes or shapes, and for values not finite.
    """
    return np.rint(_scaled(_checked(vectors)) * LARGEST).astype(np.int8)


def to_binary(vectors: Floats) -> Bits:
    """Return the signs of float32 [n, d] as uint8 [n, ceil(d / 8)], a set bit for a positive one.

    Packed as `numpy.packbits` does. Neither centring nor a rotation first was better, for
    similarity and retrieval together. UsageError as for `to_int8`.
    """
    return np.packbits(_checked(vectors) > 0, axis=1)


def quantize(vectors: Floats, precision: str) -> Vectors:
    """Return float32 [n, d] in a precision, under sentence-transformers' names for them.

    "int8" is `to_int8`, each row by its own largest magnitude, where sentence-transformers divides
    the range that each dimension has in a set of vectors; "ubinary" is `to_binary`, "binary" the
    same bytes less 128, as int8. UsageError for other names, and as for `to_int8`.
    """
    one_of("precision", precision, PRECISIONS)
    if precision == "int8":
        return to_int8(vectors)
    if precision == "float32":
        return vectors
    bits = to_binary(vectors)
    return bits if precision == "ubinary" else (bits ^ 128).view(np.int8)


def similarity(queries: Vectors, documents: Vectors, *, dim: int | None = None) -> Floats:
    """Return the cosine of every query with every document, float32 [q, n].

    Each side is float32 or int8 [·, d], or uint8 [·, ceil(d / 8)] from `to_binary`, which stands
    for a vector of ±1; for two such, the cosine is 1 - 2 · hamming / d. ``dim`` is d, needed only
    where both sides are bits and d is no multiple of 8. A zero vector has cosine 0 with all.
    UsageError for other dtypes or shapes, sides of different sizes, and values not finite.
    """
    size = _common_size(queries, documents, dim)
    out = np.empty((len(queries), len(documents)), np.float32)
    if queries.dtype == np.uint8 and documents.dtype == np.uint8:
        count = getattr(np, "bitwise_count", None)  # NumPy 2
        # Of 64 bits where that is possible: an eighth of the work.
        word = np.uint8 if count is None or queries.shape[1] % 8 else np.uint64
        words = np.ascontiguousarray(documents).view(word)
        for row, query in enumerate(np.ascontiguousarray(queries).view(word)):
            ones = _ONES[words ^ query] if count is None else count(words ^ query)
            out[row] = 1 - ones.sum(1, dtype=np.int64) * (2 / size)
        return out
    wide = _widened(queries, size)
    for start in range(0, len(documents), BLOCK):
        block = documents[start : start + BLOCK]
        np.matmul(wide, _widened(block, size).T, out=out[:, start : start + len(block)])
    return out


def _common_size(queries: Vectors, documents: Vectors, dim: int | None) -> int:
    """Return d; UsageError unless both sides can have it."""
    sides = {"queries": queries, "documents": documents}
    sizes = [] if dim is None else [integer("dim", dim, 1)]
    for side, rows in sides.items():
        _check_matrix(side, rows, "float32, int8 or uint8 (bits)", np.float32, np.int8, np.uint8)
        if rows.dtype != np.uint8:
            sizes.append(rows.shape[1])
    size = sizes[0] if sizes else 8 * queries.shape[1]
    if set(sizes) > {size}:
        raise UsageError(f"sizes differ: {' and '.join(map(str, sorted(set(sizes))))}")
    for side, rows in sides.items():
        if rows.dtype == np.uint8 and rows.shape[1] != -(-size // 8):
            raise UsageError(f"{side} of {rows.shape[1]} bytes are not the bits of {size} numbers")
    return size


def _widened(rows: Vectors, size: int) -> Floats:
    """Return any kind of rows as unit vectors, float32 [n, size]."""
    if rows.dtype == np.uint8:
        signs = np.unpackbits(rows.view(np.uint8), axis=1, count=size).astype(np.float32)
        return (signs * 2 - 1) / np.float32(size**0.5)
    return _unit(_finite(rows.astype(np.float32)))


def _unit(rows: Floats) -> Floats:
    scaled = _scaled(rows)
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    unit: Floats = scaled / np.maximum(lengths, np.float32(1))  # below 1 only where all is zero
    return unit


def _scaled(rows: Floats) -> Floats:
    """Divide each row by its largest magnitude: no square over- or underflows then."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled: Floats = rows / np.maximum(largest, _LEAST)
    return scaled


def _checked(vectors: Floats) -> Floats:
    _check_matrix("vectors", vectors, "float32", np.float32)
    return _finite(vectors)


def _check_matrix(name: str, rows: Vectors, expected: str, *dtypes: type) -> None:
    if not isinstance(rows, np.ndarray) or rows.dtype not in dtypes:
        what = getattr(rows, "dtype", type(rows).__name__)
        raise UsageError(f"{name} must be {expected}, not {what}")
    if rows.ndim != 2 or not rows.shape[1]:
        raise UsageError(f"{name} must have shape [n, d], not {list(rows.shape)}")


def _finite(vectors: Floats) -> Floats:
    if not np.isfinite(vectors).all():
        raise UsageError("vectors hold values that are not finite")
    return vectors
