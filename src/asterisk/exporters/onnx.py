"""ONNX: a graph of standard operators with a dynamic length, weights in a mapped file beside it.

The graph is written node by node rather than traced, so that query, key and value are one product,
the products are quantised where and how the recipe says, and the bytes are the same every time.
One text at a time at its exact length: dynamic quantisation takes one scale for a whole tensor, so
a padded or batched text would get another vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from asterisk import plugins
from asterisk.artifact import Thresholds
from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.exporters.nf4 import NF4_TABLE
from asterisk.exporters.onnx_graph import Graph
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import ModelConfig

ENTRY = "model.onnx"
WEIGHTS = "weights.bin"
FLOAT = 1  # onnx.TensorProto.FLOAT
HIGH = Thresholds(cosine_mean=0.9995, cosine_min=0.995, overlap_at_10=0.97)
WIDE = 16  # of so many inner channels of a feed-forward, hifi keeps one in float32


class OnnxExporter:
    """Writes ``model.onnx`` and ``weights.bin``."""

    format: ClassVar[str] = "onnx"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe(
            "int8",
            "int8 weights by output channel and table by row, products in int8",
            QUANTISED,
        ),
        Recipe(
            "int8-hifi",
            "as int8, but attention's products and one in 16 inner channels in float32",
            HIGH,
        ),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", NF4_TABLE),
        Recipe("fp32", "weights and products in float32: the control", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`."""
        onnx = plugins.require("onnx", "export")
        graph = Graph(quantised=recipe.name != "fp32")
        lay_out(graph, checkpoint.config, dict(checkpoint.tensors), recipe.name)
        model, weights = graph.finish(
            f"{checkpoint.name} {recipe.name}",
            inputs={"input_ids": (np.int64, [1, "tokens"])},
            outputs={"sentence_embedding": (np.float32, [1, checkpoint.config.embedding_size])},
            location=WEIGHTS,
        )
        (folder / ENTRY).write_bytes(model)
        (folder / WEIGHTS).write_bytes(weights)
        return Written(ENTRY, {"onnx": str(onnx.__version__)})


def lay_out(graph: Graph, config: ModelConfig, tensors: dict[str, Array], recipe: str) -> None:
    """Lay out the forward pass of `asterisk.model.encoder.Encoder` for a batch of one."""
    product: Callable[[str, Array], str] = graph.product
    attending = narrowing = product
    look_up = graph.rows_nf4 if recipe == "int8-emb4" else graph.rows
    if recipe == "int8-hifi":
        # What int8 loses, it loses here: attention's products have the widest activations, the
        # narrowing one the most uneven weights. Keeping them costs half as much time again.
        _outliers_last(config, tensors)
        attending = partial(graph.product, exact=True)
        narrowing = partial(graph.mixed_product, wide=config.intermediate_size // WIDE)

    def norm(x: str, name: str) -> str:
        return graph.node(
            "LayerNormalization",
            x,
            graph.tensor(tensors[f"{name}.weight"]),
            graph.tensor(tensors[f"{name}.bias"]),
            axis=-1,
            epsilon=config.layer_norm_eps,
        )

    def linear(
        x: str, *names: str, by: Callable[[str, Array], str], scales: tuple[float, ...] = ()
    ) -> str:
        """Apply the linear maps ``names`` side by side, each times its scale."""
        factors = scales or (1.0,) * len(names)
        weight = np.concatenate(
            [tensors[f"{n}.weight"] * np.float32(f) for n, f in zip(names, factors, strict=True)]
        )
        bias = np.concatenate(
            [tensors[f"{n}.bias"] * np.float32(f) for n, f in zip(names, factors, strict=True)]
        )
        return graph.node("Add", by(x, weight), graph.tensor(bias))

    def attention(x: str, block: str) -> str:
        # The softmax's 1/sqrt(d) is folded into the query.
        heads, root = config.num_heads, config.head_size**-0.5
        parts = [f"{block}.attention.self.{part}" for part in ("query", "key", "value")]
        mixed = linear(x, *parts, by=attending, scales=(root, 1.0, 1.0))
        # Heads as column slices: no reshape, and the only transpose fuses into its product.
        slices = graph.nodes("Split", 3 * heads, mixed, axis=-1, num_outputs=3 * heads)
        read = []
        for q, k, v in zip(
            slices[:heads], slices[heads : 2 * heads], slices[2 * heads :], strict=True
        ):
            scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[1, 0]))
            read.append(graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v))
        merged = graph.node("Concat", *read, axis=-1) if heads > 1 else read[0]
        return linear(merged, f"{block}.attention.output.dense", by=attending)

    def feed_forward(x: str, block: str) -> str:
        inner = graph.node("Gelu", linear(x, f"{block}.intermediate.dense", by=product))
        return linear(inner, f"{block}.output.dense", by=narrowing)

    length = graph.node("Shape", "input_ids", start=1, end=2)
    ids = graph.node("Reshape", "input_ids", graph.integers(-1))
    words = look_up(tensors["embeddings.word_embeddings.weight"], ids)
    x = graph.node("Add", words, _positions(graph, tensors, length))
    if config.embedding_norm:
        x = norm(x, "embeddings.LayerNorm")
    for index in range(config.num_layers):
        block = f"encoder.layer.{index}"
        first, second = f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"
        if config.norm_first:
            x = graph.node("Add", x, attention(norm(x, first), block))
            x = graph.node("Add", x, feed_forward(norm(x, second), block))
        else:
            x = norm(graph.node("Add", x, attention(x, block)), first)
            x = norm(graph.node("Add", x, feed_forward(x, block)), second)
    x = graph.node("MatMul", _mean_weights(graph, config, length), x)
    if config.projection_size:
        weight = graph.tensor(tensors["projection.weight"].T.copy())
        x = graph.node(
            "Add", graph.node("MatMul", x, weight), graph.tensor(tensors["projection.bias"])
        )
    graph.name_output(x, "sentence_embedding")


def _outliers_last(config: ModelConfig, tensors: dict[str, Array]) -> None:
    """Sort each feed-forward's inner channels by their largest outgoing weight; all else is equal.

    From the weights alone: which channels are large for some texts need not be for others.
    """
    for index in range(config.num_layers):
        inner, outer = (
            f"encoder.layer.{index}.{part}.dense" for part in ("intermediate", "output")
        )
        order = np.argsort(np.abs(tensors[f"{outer}.weight"]).max(0), kind="stable")
        for part in ("weight", "bias"):
            tensors[f"{inner}.{part}"] = tensors[f"{inner}.{part}"][order]
        tensors[f"{outer}.weight"] = tensors[f"{outer}.weight"][:, order]


def _positions(graph: Graph, tensors: dict[str, Array], length: str) -> str:
    # There is one token type only: it rides on the positions.
    table = (
        tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"]
    )
    return graph.node("Slice", graph.tensor(table), graph.integers(0), length, graph.integers(0))


def _mean_weights(graph: Graph, config: ModelConfig, length: str) -> str:
    # A product with a row of 1/length: several times as fast as ReduceMean down the columns.
    ones = graph.tensor(np.ones((1, config.max_positions), np.float32))
    row = graph.node("Slice", ones, graph.integers(0), length, graph.integers(1))
    return graph.node("Div", row, graph.node("Cast", length, to=FLOAT))
