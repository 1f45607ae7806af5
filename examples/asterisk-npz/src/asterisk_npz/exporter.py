"""npz: a checkpoint's tensors in numpy's own archive, matrices narrow, the rest float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.checkpoint import Checkpoint
from asterisk_npz.engine import ENTRY, SCALE


class NpzExporter:
    """Writes ``model.npz``."""

    format: ClassVar[str] = "npz"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "matrices and token table in int8, a scale for each row", QUANTISED),
        Recipe("fp16", "matrices and token table in float16", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the tensors under ``recipe``; see `Exporter.write`."""
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
