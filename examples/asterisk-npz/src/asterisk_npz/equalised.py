"""A recipe for a format that exists: the built-in exporter over weights that were changed first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from asterisk.exporters import Exporter, Recipe, Written
from asterisk.exporters.export import choose
from asterisk.exporters.onnx import OnnxExporter
from asterisk.model.checkpoint import Checkpoint


class EqualisedOnnxExporter(Exporter):
    """ONNX's int8 after cross-layer equalisation (arXiv:1906.04721, section 4.1).

    A format's name leads to its runtime, so this one has a name of its own, and the entry point of
    that name leads to the ONNX adapter.
    """

    format: ClassVar[str] = "onnx-equalised"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "onnx's int8, attention's values and output of equal ranges", bits=8),
    )

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Sequence[Sequence[int]],
    ) -> Written:
        """Write the changed weights by the built-in exporter; see `Exporter.write`."""
        writer = OnnxExporter()
        return writer.write(equalised(checkpoint), choose(writer, recipe.name), folder, samples)


def equalised(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same encoder with each channel of attention's values as wide on its way out.

    Nothing lies between the two products but a weighted mean over tokens, so that what one channel
    is multiplied by on its way in, it may be divided by on its way out.
    """
    tensors = dict(checkpoint.tensors)
    for index in range(checkpoint.config.num_layers):
        block = f"encoder.layer.{index}.attention"
        value, output = f"{block}.self.value", f"{block}.output.dense.weight"
        incoming = np.abs(tensors[f"{value}.weight"]).max(1)
        outgoing = np.abs(tensors[output]).max(0)
        nonzero = (incoming > 0) & (outgoing > 0)
        factor = np.sqrt(np.divide(outgoing, incoming, where=nonzero, out=np.ones_like(incoming)))
        tensors[f"{value}.weight"] = tensors[f"{value}.weight"] * factor[:, None]
        tensors[f"{value}.bias"] = tensors[f"{value}.bias"] * factor
        tensors[output] = tensors[output] / factor
    return replace(checkpoint, tensors=tensors)
