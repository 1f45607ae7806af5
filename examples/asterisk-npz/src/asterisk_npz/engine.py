"""Opens ``model.npz``: every array must be there, of the right type and shape, and finite."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError
from asterisk.model.config import ModelConfig, tensor_shapes
from asterisk.runtimes.engine import ArtifactEngine, Vector
from asterisk_npz.forward import Encoder

ENTRY = "model.npz"
SCALE = ":scale"  # after the name of a matrix, its rows' scales
LONGEST_HEADER = 1_024  # bytes, of one array
_NARROW = {np.dtype("int8"), np.dtype("float16")}
_WIDE = {np.dtype("float32")}


class NpzEngine(ArtifactEngine):
    """Arrays and arithmetic: nothing that a thread could disturb, so all lanes share it."""

    format: ClassVar[str] = "npz"

    def __init__(self, artifact: Artifact) -> None:
        try:
            arrays = _read(artifact.entry, artifact.config)
        except ArtifactError as failure:
            raise ArtifactError(f"{artifact.entry}: {failure}") from None
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
            raise ArtifactError(f"{artifact.entry} is not an .npz file") from None
        self._encoder = Encoder(artifact.config, arrays, SCALE)

    @classmethod
    def open(cls, artifact: Artifact, lanes: int) -> list[Self]:
        """Open one for all lanes; see `ArtifactEngine.open`."""
        return [cls(artifact)] * lanes

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        return self._encoder(np.array(ids))


def _read(path: Path, config: ModelConfig) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays; what is declared is compared before room is made for it."""
    shapes = tensor_shapes(config)
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            matrix = name.removesuffix(SCALE)
            shape = shapes.get(matrix, ())
            if name != matrix:
                shape = shape[:1] if len(shape) == 2 else ()
            kinds = _WIDE if len(shape) == 1 else _NARROW
            if not shape or name in arrays or member.compress_type != zipfile.ZIP_STORED:
                raise ArtifactError(f"{member.filename[:100]!r} does not belong")
            if member.file_size > math.prod(shape) * 4 + LONGEST_HEADER:
                raise ArtifactError(f"{name} is too large")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ArtifactError(f"{name} is of another version of numpy's format")
                found, fortran, dtype = np.lib.format.read_array_header_1_0(file, LONGEST_HEADER)
                if found != shape or fortran or dtype not in kinds:
                    raise ArtifactError(f"{name} is {dtype} {found}, which does not fit the model")
                data = file.read()  # checked against the archive's own sum
            if len(data) != math.prod(shape) * dtype.itemsize:
                raise ArtifactError(f"{name} has {len(data)} bytes")
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    wanted = set(shapes)
    wanted |= {f"{name}{SCALE}" for name, array in arrays.items() if array.dtype == np.int8}
    if missing := wanted ^ set(arrays):
        raise ArtifactError(f"{min(missing)} is missing, or not needed")
    for name, array in arrays.items():
        if array.dtype != np.int8 and not np.isfinite(array).all():
            raise ArtifactError(f"{name} has values that are not finite")
    return arrays
