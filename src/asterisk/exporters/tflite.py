"""TFLite: one file that LiteRT and other TFLite interpreters run at any length.

``int8`` stores every matrix and the token table as int8 with one scale a row; matrices are
multiplied in int8 (each token's activations are quantised by themselves while running), so a
vector does not depend on padding or neighbours. Position vectors, biases, norms and attention stay
float32. Weights without integer arithmetic, or in 16 bits, would be expanded to float32 in memory.
``int8-emb4`` differs in the token table alone: NF4, which lies in the file as plain bytes, so that
only the rows of a text are ever unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.exporters.nf4 import NF4_TABLE
from asterisk.exporters.tflite_graph import encoder_graph
from asterisk.model.checkpoint import Checkpoint

ENTRY = "model.tflite"


class TfliteExporter:
    """Writes ``model.tflite``."""

    format: ClassVar[str] = "tflite"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "matrices and token table in int8, a scale for each row", QUANTISED),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", NF4_TABLE),
        Recipe("fp32", "everything in float32: the control", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`."""
        from importlib.metadata import version

        data = encoder_graph(
            checkpoint, int8=recipe.name != "fp32", nf4_table=recipe.name == "int8-emb4"
        )
        (folder / ENTRY).write_bytes(data)
        tools = ("ai-edge-litert", "flatbuffers")
        return Written(ENTRY, {tool: version(tool) for tool in tools})
