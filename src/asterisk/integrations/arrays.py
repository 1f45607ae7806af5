"""What sentence-transformers does with vectors after the model, in NumPy.

Its ``util.quantize_embeddings`` and its four similarity functions, version 6: same values, same
dtypes. PyTorch is imported only where the result is to be a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import MissingPackage, UsageError
from asterisk.common.vectors import quantize

Array = npt.NDArray[Any]
STEPS = 255  # of a byte
BLOCK = 64  # rows whose differences with all others are held at once


def quantiser(precision: str | None) -> Callable[[Array], Array]:
    """Return what makes float32 [n, d] the dtype that ``precision`` names; UsageError for others.

    int8 and uint8 divide the range that each dimension has in these rows, so that one row alone is
    refused and vectors of different calls cannot be compared; `asterisk.common.vectors.to_int8`
    gives bytes without that. binary and ubinary are the signs, [n, d / 8].
    """
    found = _QUANTISERS.get(precision)
    if found is None:
        named = ", ".join(str(name) for name in _QUANTISERS if name)
        raise UsageError(f"precision is one of {named}, not {precision!r}")
    return found


def _same(vectors: Array) -> Array:
    return vectors


def _uint8(vectors: Array) -> Array:
    return _stepped(vectors).astype(np.uint8)


def _int8(vectors: Array) -> Array:
    return (_stepped(vectors) - 128).astype(np.int8)


def _stepped(vectors: Array) -> Array:
    if len(vectors) < 2:
        raise UsageError("the range of int8 and uint8 comes from the texts: give two or more")
    lowest, highest = vectors.min(0), vectors.max(0)
    steps = (highest - lowest) / STEPS
    stepped: Array = np.clip(
        np.floor((vectors - lowest) / np.where(steps == 0, 1, steps)), 0, STEPS
    )
    return stepped


_QUANTISERS: Mapping[str | None, Callable[[Array], Array]] = {
    "float32": _same,
    None: _same,
    "int8": _int8,
    "uint8": _uint8,
    "binary": partial(quantize, precision="binary"),
    "ubinary": partial(quantize, precision="ubinary"),
}


def unit(rows: Array) -> Array:
    """Return rows of unit length; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Array = (rows / np.maximum(lengths, 1e-12)).astype(rows.dtype)
    return scaled


def tensor(values: Array) -> Any:
    """Return ``values`` as a PyTorch tensor; MissingPackage where there is no PyTorch."""
    try:
        import torch
    except ModuleNotFoundError as failure:
        raise MissingPackage(
            "torch", ", and a tensor needs it; asterisk.common.vectors.similarity compares without"
        ) from failure
    if not len(values):
        return torch.tensor([])  # float32, as there
    return torch.from_numpy(np.ascontiguousarray(values))


def _cosine(a: Array, b: Array) -> Array:
    return _dot(unit(a), unit(b))


def _dot(a: Array, b: Array) -> Array:
    product: Array = a @ b.T
    return product


def _by_blocks(distance: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    def compared(a: Array, b: Array) -> Array:
        out = np.empty((len(a), len(b)), np.result_type(a, b))
        for start in range(0, len(a), BLOCK):
            out[start : start + BLOCK] = -distance(a[start : start + BLOCK, None] - b[None])
        return out

    return compared


def _length(differences: Array) -> Array:
    lengths: Array = np.sqrt((differences * differences).sum(-1))
    return lengths


def _steps_apart(differences: Array) -> Array:
    distances: Array = np.abs(differences).sum(-1)
    return distances


FUNCTIONS: Mapping[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "cosine": (_cosine, lambda a, b: (unit(a) * unit(b)).sum(-1)),
    "dot": (_dot, lambda a, b: (a * b).sum(-1)),
    "euclidean": (_by_blocks(_length), lambda a, b: -_length(a - b)),
    "manhattan": (_by_blocks(_steps_apart), lambda a, b: -_steps_apart(a - b)),
}
"""By name: each of the one with each of the other, and each with its counterpart."""


def compare(name: str, embeddings1: Any, embeddings2: Any) -> Array:
    """Return the similarity ``name`` of every row with every row, [n, m]; higher is nearer."""
    a, b = _rows(embeddings1), _rows(embeddings2)
    if a.shape[1] != b.shape[1]:
        raise UsageError(f"sizes differ: {a.shape[1]} and {b.shape[1]}")
    return FUNCTIONS[name][0](a, b)


def compare_pairs(name: str, embeddings1: Any, embeddings2: Any) -> Array:
    """Return the similarity ``name`` of rows that stand at the same place, [n]."""
    a, b = _rows(embeddings1), _rows(embeddings2)
    if a.shape != b.shape:
        raise UsageError(f"shapes differ: {list(a.shape)} and {list(b.shape)}")
    return FUNCTIONS[name][1](a, b)


def _rows(embeddings: Any) -> Array:
    """See an array, a tensor or a list of either as floating-point rows."""
    if isinstance(embeddings, (list, tuple)):
        rows = np.stack([_array(one) for one in embeddings]) if embeddings else np.empty((0, 0))
    else:
        rows = _array(embeddings)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size:
        raise UsageError(f"embeddings must have shape [n, d] or [d], not {list(rows.shape)}")
    return rows if rows.dtype.kind == "f" else rows.astype(np.float32)


def _array(values: Any) -> Array:
    if hasattr(values, "detach"):  # a tensor, wherever it is
        values = values.detach().cpu().numpy()
    return np.asarray(values)
