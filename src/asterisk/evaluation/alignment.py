"""The teacher's vectors in the student's space: documents by the one, queries by the other.

A student distilled as LEAF does it (arXiv 2509.12539) lives in its teacher's space, here rotated
and cut by one fixed projection. So a server may index documents with the better, slower teacher,
and a device search that index with the student. numpy is all this needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asterisk.artifact import is_artifact, open_artifact, share_space
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.common.vectors import Floats, truncate
from asterisk.model.checkpoint import is_checkpoint, load

FILE = "teacher_projection.safetensors"
TENSOR = "weight"
LARGEST = 256 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Alignment:
    """The map from a teacher's vectors to a student's."""

    weight: Floats  # float32 [dim, teacher_dim]
    fingerprint: str | None = None  # of the student's space, if the weight's file says it

    @classmethod
    def open(cls, path: str | Path) -> Alignment:
        """Read it from a checkpoint, an artifact or a file that holds it; ArtifactError if none."""
        path = Path(path)
        if is_artifact(path):
            manifest = open_artifact(path).manifest
            if FILE not in manifest.files:
                raise ArtifactError(
                    f"{path} carries no {FILE}: name the checkpoint that it was exported from"
                )
            return cls(_read(path / FILE)[0], manifest.fingerprint)
        if not path.is_dir():
            return cls(*_read(path))
        if not is_checkpoint(path) or not (path / FILE).is_file():
            raise ArtifactError(f"{path} is no checkpoint with a {FILE}")
        return cls(_read(path / FILE)[0], load(path).fingerprint)

    @property
    def dim(self) -> int:
        """Elements of a vector of the student."""
        return int(self.weight.shape[0])

    @property
    def teacher_dim(self) -> int:
        """Elements of a vector of the teacher."""
        return int(self.weight.shape[1])

    def project(self, teacher_vectors: Floats, *, dim: int | None = None) -> Floats:
        """Map float32 [n, teacher_dim] to unit vectors [n, dim]; UsageError for any other input."""
        found = getattr(teacher_vectors, "dtype", type(teacher_vectors).__name__)
        if found != np.float32:
            raise UsageError(f"teacher_vectors must be float32, not {found}")
        if teacher_vectors.ndim != 2 or teacher_vectors.shape[1] != self.teacher_dim:
            shape = list(teacher_vectors.shape)
            raise UsageError(f"teacher_vectors must be [n, {self.teacher_dim}], not {shape}")
        if not np.isfinite(teacher_vectors).all():
            raise UsageError("teacher_vectors hold values that are not finite")
        return truncate(teacher_vectors @ self.weight.T, self.dim if dim is None else dim)

    def check(self, *spaces: str) -> None:
        """Raise ArtifactError if this is of none of a model's ``spaces``, its own one first."""
        if self.fingerprint is not None and not share_space((self.fingerprint,), spaces):
            raise ArtifactError(
                f"the projection is of space {self.fingerprint[:12]}, "
                f"the model of {spaces[0][:12]}: their vectors cannot be compared"
            )

    def save(self, path: str | Path) -> None:
        """Write it as a file of its own, with the fingerprint, whole or not at all."""
        metadata = {} if self.fingerprint is None else {"fingerprint": self.fingerprint}
        tensors.write(Path(path), {TENSOR: self.weight}, metadata)


def _read(path: Path) -> tuple[Floats, str | None]:
    read = tensors.read(path, largest=LARGEST)
    if set(read.arrays) != {TENSOR} or read.arrays[TENSOR].ndim != 2:
        raise ArtifactError(f"{path} does not hold one matrix named {TENSOR!r}")
    weight = read.arrays[TENSOR]
    if not 0 < weight.shape[0] <= weight.shape[1]:
        raise ArtifactError(f"{path}: shape {list(weight.shape)} is no projection of a teacher")
    return weight, read.metadata.get("fingerprint")
