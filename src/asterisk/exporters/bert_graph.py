"""BERT's forward pass for one text as an ONNX graph, in int8 or in float32.

In int8, products are by output channel and everything else is float32. No padding, so no mask,
unless somebody else's runtime pads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asterisk.exporters.onnx_graph import Graph

Array = npt.NDArray[np.float32]
STATES, SENTENCE = "token_embeddings", "sentence_embedding"
MASK = "attention_mask"
HIDDEN = 1e9  # taken from the score of a token that is padding


@dataclass(frozen=True, slots=True)
class Shape:
    """What the weights' own shapes do not tell."""

    layers: int
    heads: int
    epsilon: float = 1e-12


def lay_out(
    weights: Mapping[str, Array],
    shape: Shape,
    *,
    location: str,
    pooled: bool,
    quantised: bool = True,
    masked: bool = False,
) -> tuple[bytes, bytes]:
    """Return BERT's forward pass for one text as a model and its external weights.

    Input ``input_ids`` int64 [1, tokens]; output `STATES` float32 [1, tokens, hidden], or
    `SENTENCE` float32 [1, hidden], their mean, if ``pooled``. If ``masked``, any number of texts at
    once, padded to [batch, tokens], with an input ``attention_mask`` like ``input_ids``.
    """
    if pooled and masked:
        raise ValueError("a mean over padding is no mean: pool where the mask is known")
    graph = Graph(quantised=quantised)
    tensors = dict(weights)
    hidden = tensors["embeddings.word_embeddings.weight"].shape[1]
    size = hidden // shape.heads
    for index in range(shape.layers):  # the softmax's 1/sqrt(d) is folded into the query
        for part in ("weight", "bias"):
            query = f"encoder.layer.{index}.attention.self.query.{part}"
            tensors[query] = tensors[query] * np.float32(size**-0.5)

    def norm(x: str, name: str) -> str:
        scale, shift = (graph.tensor(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=shape.epsilon)

    def linear(x: str, *names: str) -> str:
        weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
        bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
        return graph.node("Add", graph.product(x, weight), graph.tensor(bias))

    hide = ""
    if masked:
        seen = graph.node("Cast", MASK, to=graph.onnx.TensorProto.FLOAT)
        away = graph.node("Sub", seen, graph.tensor(np.array(1, np.float32)))
        wide = graph.node("Mul", away, graph.tensor(np.array(HIDDEN, np.float32)))
        hide = graph.node("Unsqueeze", wide, graph.integers(1, 2))

    def attention(x: str, block: str) -> str:
        parts = [f"{block}.attention.self.{part}" for part in ("query", "key", "value")]
        columns = graph.integers(0, -1, 3 * shape.heads, size)
        mixed = graph.node("Reshape", linear(x, *parts), columns)
        heads = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
        q, k, v = graph.nodes("Split", 3, heads, axis=1, num_outputs=3)
        scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
        scores = graph.node("Add", scores, hide) if masked else scores
        read = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v)
        read = graph.node("Transpose", read, perm=[0, 2, 1, 3])
        merged = graph.node("Reshape", read, graph.integers(0, -1, hidden))
        return linear(merged, f"{block}.attention.output.dense")

    places = tensors["embeddings.position_embeddings.weight"]
    places = places + tensors["embeddings.token_type_embeddings.weight"][0]
    length = graph.node("Shape", "input_ids", start=1, end=2)
    here = graph.node("Slice", graph.tensor(places), graph.integers(0), length, graph.integers(0))
    x = graph.node("Add", graph.rows(tensors["embeddings.word_embeddings.weight"]), here)
    x = norm(x, "embeddings.LayerNorm")
    for index in range(shape.layers):
        block = f"encoder.layer.{index}"
        x = graph.node("Add", x, attention(x, block))
        x = norm(x, f"{block}.attention.output.LayerNorm")
        inner = graph.node("Gelu", linear(x, f"{block}.intermediate.dense"))
        x = graph.node("Add", x, linear(inner, f"{block}.output.dense"))
        x = norm(x, f"{block}.output.LayerNorm")
    if pooled:
        x = graph.node("ReduceMean", x, graph.integers(1), keepdims=0)
    batch: int | str = "batch" if masked else 1
    name, dimensions = (SENTENCE, [1, hidden]) if pooled else (STATES, [batch, "tokens", hidden])
    given = ("input_ids", MASK) if masked else ("input_ids",)
    graph.name_output(x, name)
    return graph.finish(
        "BERT int8" if quantised else "BERT",
        inputs={each: (np.int64, [batch, "tokens"]) for each in given},
        outputs={name: (np.float32, dimensions)},
        location=location,
    )
