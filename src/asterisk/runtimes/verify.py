"""Whether an artifact, here and now, gives the vectors it was exported with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.artifact import GOLDEN_TEXTS, GOLDEN_VECTORS, Artifact, opened
from asterisk.common.errors import ArtifactError, FidelityError
from asterisk.runtimes.load import open_runtime
from asterisk.runtimes.runtime import Vectors

MOST_TEXTS = 10_000
UNIT = 1e-3  # how far a golden vector's length may be from one


@dataclass(frozen=True, slots=True)
class Verdict:
    """Cosines of an artifact's golden texts, embedded on this machine, with their FP32 vectors."""

    artifact: Artifact
    texts: int
    cosine_mean: float
    cosine_min: float


def verify(folder: Path) -> Verdict:
    """Check hashes, embed the golden texts and compare.

    ArtifactError if the folder cannot be trusted, FidelityError if a vector is further from FP32
    than the recipe allows.
    """
    return opened(folder, _verify)


def _verify(artifact: Artifact) -> Verdict:
    texts, expected = _golden(artifact)
    with open_runtime(artifact) as runtime:
        found = runtime.encode(texts, prompt="", normalize=True)
    cosines = np.einsum("ij,ij->i", found.astype("f8"), expected.astype("f8"))
    lowest, least = float(cosines.min()), artifact.manifest.thresholds.cosine_min
    if not lowest >= least:  # also when it is not a number
        raise FidelityError(f"{artifact.folder}: cosine to FP32 is {lowest:.5f}, below {least}")
    return Verdict(artifact, len(texts), float(cosines.mean()), lowest)


def _golden(artifact: Artifact) -> tuple[list[str], Vectors]:
    path = artifact.folder / GOLDEN_VECTORS
    try:
        texts: Any = json.loads((artifact.folder / GOLDEN_TEXTS).read_bytes())
        # Mapped, so that a header that lies about its size cannot ask for memory.
        vectors: Any = np.lib.format.open_memmap(path, mode="r")
        fits = vectors.shape == (len(texts), artifact.config.embedding_size)
    except Exception:  # whatever json and numpy raise for what is neither
        raise ArtifactError(f"{artifact.folder}: golden texts or vectors cannot be read") from None
    if (
        not fits
        or not isinstance(texts, list)
        or not 1 <= len(texts) <= MOST_TEXTS
        or not all(isinstance(text, str) and text for text in texts)
        or vectors.dtype != np.float32
    ):
        raise ArtifactError(f"{artifact.folder}: golden texts and vectors do not belong together")
    expected = np.array(vectors)
    # A longer vector would have a cosine above one, and anything would be near enough to it.
    if not np.abs(np.linalg.norm(expected.astype("f8"), axis=1) - 1).max() < UNIT:
        raise ArtifactError(f"{artifact.folder}: golden vectors are not of unit length")
    return texts, expected
