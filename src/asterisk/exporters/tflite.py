"""TFLite: one file that LiteRT and other TFLite interpreters run at any length.

``int8`` stores every matrix and the token table as int8 with one scale a row; matrices are
multiplied in int8 (each token's activations are quantised by themselves while running), so a
vector does not depend on padding or neighbours. Position vectors, biases, norms and attention stay
float32. Weights without integer arithmetic, or in 16 bits, would be expanded to float32 in memory.
``int8-emb4`` differs in the token table alone: NF4, which lies in the file as plain bytes, so that
only the rows of a text are ever unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from asterisk.artifact import Thresholds
from asterisk.exporters import thresholds
from asterisk.exporters.calibration import calibrate, largest_scores
from asterisk.exporters.exporter import Recipe, Written
from asterisk.exporters.forward import Cures, Weights, sentence_embedding
from asterisk.exporters.tflite_graph import EncoderGraph
from asterisk.model.checkpoint import Checkpoint

ENTRY = "model.tflite"
OUTPUT, SIGNATURE = "sentence_embedding", "serving_default"


class TfliteExporter:
    """Writes ``model.tflite``."""

    format: ClassVar[str] = "tflite"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "matrices and token table in int8, a scale for each row", 8),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", 6),
        Recipe("fp32", "everything in float32: the control"),
    )

    def thresholds(self, recipe: Recipe, layers: int) -> Thresholds:
        """Return how far a model may stray from FP32; see `Exporter.thresholds`."""
        return thresholds.thresholds(recipe.name, layers)

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Sequence[Sequence[int]],
    ) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`."""
        from importlib.metadata import version

        int8 = recipe.name != "fp32"
        cures = calibrate(checkpoint, samples, per_token=True) if int8 else []
        nf4_table = recipe.name == "int8-emb4"
        scores = largest_scores(checkpoint, samples)
        graph = EncoderGraph(checkpoint.config, int8=int8, nf4_table=nf4_table)
        data = sentence_model(graph, checkpoint.name, checkpoint.tensors, cures, scores)
        (folder / ENTRY).write_bytes(data)
        tools = ("ai-edge-litert", "flatbuffers")
        return Written(ENTRY, {tool: version(tool) for tool in tools})


def sentence_model(
    graph: EncoderGraph,
    name: str,
    tensors: Weights,
    cures: Sequence[Cures] = (),
    scores: Sequence[float] = (),
) -> memoryview:
    """Return the file that maps ids int32 [1, tokens] to `OUTPUT` float32 [1, size]."""
    vector = sentence_embedding(graph, graph.config, tensors, cures, scores)
    graph.rename(vector, OUTPUT)
    return graph.to_bytes(SIGNATURE, graph.ids, vector, f"asterisk {name}")
