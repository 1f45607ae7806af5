"""How far one runtime's vectors are from the FP32 ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Agreement of n vectors with their FP32 counterparts.

    Cosines are of each vector with its counterpart: mean, 1st percentile and minimum.
    ``overlap_at_10`` is the mean share of each text's ten nearest neighbours that the two sets of
    vectors have in common.
    """

    texts: int
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    overlap_at_10: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def compare(ours: Vectors, reference: Vectors) -> Fidelity:
    """Compare two float arrays [n, d], row with row; n > 10, no row all zeros."""
    a, b = _unit(ours), _unit(reference)
    cosines = np.einsum("ij,ij->i", a, b)
    return Fidelity(
        texts=len(a),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        overlap_at_10=overlap(a, b),
    )


def overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Return the mean share of common neighbours among the nearest ten, for unit rows [n, d]."""
    near_a, near_b = _neighbours(a), _neighbours(b)
    shared = [len(np.intersect1d(x, y)) for x, y in zip(near_a, near_b, strict=True)]
    return float(np.mean(shared) / near_a.shape[1])


def _neighbours(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, len(unit) - 1)
    return np.argpartition(-similar, count - 1, axis=1)[:, :count]


def _unit(vectors: Vectors) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    unit: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
