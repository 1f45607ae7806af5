"""ONNX: a graph of standard operators with a dynamic length, weights in a mapped file beside it.

The graph is written node by node rather than traced, so that query, key and value are one product,
the products are quantised where and how the recipe says, and the bytes are the same every time.
One text at a time at its exact length: dynamic quantisation takes one scale for a whole tensor, so
a padded or batched text would get another vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from asterisk.artifact import Thresholds
from asterisk.common import plugins
from asterisk.exporters import thresholds
from asterisk.exporters.calibration import calibrate
from asterisk.exporters.exporter import Recipe, Written
from asterisk.exporters.forward import Cures, Weights, sentence_embedding, token_states
from asterisk.exporters.onnx_graph import INPUT, EncoderGraph
from asterisk.model.checkpoint import Checkpoint

ENTRY, WEIGHTS = "model.onnx", "weights.bin"
OUTPUT, STATES = "sentence_embedding", "token_embeddings"


class OnnxExporter:
    """Writes ``model.onnx`` and ``weights.bin``."""

    format: ClassVar[str] = "onnx"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "int8 weights by output channel and table by row, products in int8", 8),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", 6),
        Recipe("fp32", "weights and products in float32: the control"),
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
        config, name = checkpoint.config, f"{checkpoint.name} {recipe.name}"
        quantised = recipe.name != "fp32"
        with (folder / WEIGHTS).open("wb") as weights:
            graph = EncoderGraph(
                config,
                weights,
                WEIGHTS,
                quantised=quantised,
                nf4_table=recipe.name == "int8-emb4",
            )
            cures = calibrate(checkpoint, samples, per_token=False) if quantised else []
            model = sentence_model(graph, name, checkpoint.tensors, cures)
        (folder / ENTRY).write_bytes(model)
        return Written(ENTRY, {"onnx": str(plugins.require("onnx", "export").__version__)})


def sentence_model(
    graph: EncoderGraph, name: str, tensors: Weights, cures: Sequence[Cures] = ()
) -> bytes:
    """Return the model that maps `INPUT` int64 [1, tokens] to `OUTPUT` float32 [1, size]."""
    vector = sentence_embedding(graph, graph.config, tensors, cures)
    graph.name_output(vector, OUTPUT)
    return _finish(graph, name, OUTPUT, [1, graph.config.embedding_size])


def states_model(graph: EncoderGraph, name: str, tensors: Weights) -> bytes:
    """Return the model that gives the last hidden states, `STATES` float32 [tokens, hidden]."""
    graph.name_output(token_states(graph, graph.config, tensors), STATES)
    return _finish(graph, name, STATES, ["tokens", graph.config.hidden_size])


def _finish(graph: EncoderGraph, name: str, output: str, shape: Sequence[int | str]) -> bytes:
    return graph.finish(
        name, inputs={INPUT: (np.int64, [1, "tokens"])}, outputs={output: (np.float32, shape)}
    )
