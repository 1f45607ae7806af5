"""npz: a checkpoint's tensors in numpy's own archive, matrices narrow, the rest float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.artifact import Thresholds
from asterisk.common.errors import UsageError
from asterisk.exporters import Exporter, Recipe, Written, thresholds
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.checkpoint import Checkpoint
from asterisk_npz.engine import ENTRY, SCALE


class NpzExporter(Exporter):
    """Writes ``model.npz``."""

    format: ClassVar[str] = "npz"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "matrices and token table in int8, a scale for each row", bits=8),
        Recipe("fp16", "matrices and token table in float16", bits=16),
    )

    def thresholds(self, recipe: Recipe, layers: int) -> Thresholds:
        """Return how far a model may stray from FP32; see `Exporter.thresholds`."""
        return thresholds("f16" if recipe.name == "fp16" else recipe.name, layers)

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Sequence[Sequence[int]],  # noqa: ARG002 - this rounding needs no calibration
    ) -> Written:
        """Write the tensors under ``recipe``; see `Exporter.write`."""
        config = checkpoint.config
        if config.activation != "gelu" or config.pooling != "mean" or config.dense:
            raise UsageError("npz is an example: exact GELU and the mean, no Dense")
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, tensor in checkpoint.tensors.items():
            if tensor.ndim == 1:
                arrays[name] = tensor
            elif recipe.name == "fp16":
                arrays[name] = tensor.astype(np.float16)
            else:
                arrays[name], arrays[name + SCALE] = quantise_rows(tensor)
        # Not compressed: weights hardly shrink, and a size that is known cannot be a bomb.
        np.savez(folder / ENTRY, allow_pickle=False, **arrays)
        return Written(ENTRY, {"numpy": np.__version__})
