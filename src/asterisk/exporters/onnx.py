"""ONNX: a graph of standard operators with a dynamic length, weights in a mapped file beside it.

The graph is written node by node rather than traced, so that query, key and value are one product,
the products are quantised where and how the recipe says, and the bytes are the same every time.
One text at a time at its exact length: dynamic quantisation takes one scale for a whole tensor, so
a padded or batched text would get another vector.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.common import plugins
from asterisk.exporters import SHALLOW, Exporter, Recipe, Samples, Written
from asterisk.exporters.forward import PLAIN, Array, BlockCalibration, Calibration, ForwardPass
from asterisk.exporters.rounding import NF4_BLOCK, calibrate, nf4_pairs, quantise_nf4, quantise_rows
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig

ENTRY, WEIGHTS = "model.onnx", "weights.bin"
INPUT, OUTPUT, STATES = "input_ids", "sentence_embedding", "token_embeddings"
OPSET = 20
IR_VERSION = 10
INLINE = 1_024  # bytes; smaller tensors stay in the model file
PAGE = 4_096
FLOAT, UINT8, INT32, INT64 = 1, 2, 6, 7  # onnx.TensorProto.DataType
Shapes = Mapping[str, Sequence[int | str]]  # by name


class OnnxExporter(Exporter):
    """Writes ``model.onnx`` and ``weights.bin``."""

    format: ClassVar[str] = "onnx"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "int8 weights by output channel and table by row, products in int8", 8),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", 6),
        Recipe("fp32", "weights and products in float32: the control"),
    )

    def write(
        self, checkpoint: Checkpoint, recipe: Recipe, folder: Path, samples: Samples
    ) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`."""
        config, quantised, nf4 = (
            checkpoint.config,
            recipe.name != "fp32",
            recipe.name == "int8-emb4",
        )
        with (folder / WEIGHTS).open("wb") as weights:
            graph = EncoderGraph(config, weights, WEIGHTS, quantised=quantised, nf4_table=nf4)
            calibration = calibrate(checkpoint, samples, per_token=False) if quantised else []
            name = f"{checkpoint.name} {recipe.name}"
            model = sentence_model(graph, name, checkpoint.tensors, calibration)
        (folder / ENTRY).write_bytes(model)
        return Written(ENTRY, {"onnx": str(plugins.require("onnx", "export").__version__)})


class EncoderGraph:
    """A graph under construction, with the operators of `asterisk.exporters.forward` for one text.

    A value is known by its name. Weights go to the file ``weights``, which the model names
    ``location``, as they are met, so that none is held; without one they are part of the model.
    ``quantised`` makes products and the token table int8; ``nf4_table`` makes the table NF4.
    """

    # Of shapes with heads: how tokens are counted, which permutations swap tokens with heads and
    # transpose a matrix, and where heads are.
    tokens: ClassVar[tuple[int, ...]] = (-1,)
    swapped: ClassVar[Sequence[int]] = (1, 0, 2)
    transposed: ClassVar[Sequence[int]] = (0, 2, 1)
    head_axis: ClassVar[int] = 0

    def __init__(
        self,
        config: ModelConfig,
        weights: BinaryIO | None,
        location: str,
        *,
        quantised: bool,
        nf4_table: bool = False,
    ) -> None:
        self.onnx = plugins.require("onnx", "export")
        self._weights, self._location = weights, location
        self._end = 0  # of the weight file
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []
        self._names: dict[tuple[str, bytes, tuple[int, ...]], str] = {}  # of tensors, by content
        self.config, self.quantised, self.nf4_table = config, quantised, nf4_table
        self.length = self.node("Shape", INPUT, start=1, end=2)
        self.ids = self.node("Reshape", INPUT, self.integers(-1))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.nodes(kind, 1, *inputs, **attributes)[0]

    def nodes(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node and return the names of its outputs."""
        name = f"{kind}_{len(self._nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        make = self.onnx.helper.make_node
        self._nodes.append(make(kind, inputs, names, name=name, **attributes))
        return names

    def tensor(self, values: npt.NDArray[Any]) -> str:
        """Add a constant, once however often it is used, and return its name."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        key = (values.dtype.str, hashlib.sha256(values.data).digest(), values.shape)
        if key not in self._names:
            self._names[key] = f"tensor_{len(self._tensors)}"
            self._tensors.append(self._initializer(self._names[key], values))
        return self._names[key]

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.tensor(np.array(values, np.int64))

    def name_output(self, value: str, name: str) -> None:
        """Give the last node's output ``value`` its public name."""
        outputs = self._nodes[-1].output
        outputs[list(outputs).index(value)] = name

    def finish(self, name: str, inputs: Shapes, outputs: Shapes) -> bytes:
        """Return the model's bytes; inputs are int64, outputs float32."""
        helper = self.onnx.helper
        values = (
            [helper.make_tensor_value_info(key, kind, shape) for key, shape in shapes.items()]
            for kind, shapes in ((INT64, inputs), (FLOAT, outputs))
        )
        model = helper.make_model(
            helper.make_graph(self._nodes, name, *values, self._tensors),
            producer_name="asterisk",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _initializer(self, key: str, values: npt.NDArray[Any]) -> Any:
        if self._weights is None or values.nbytes < INLINE:
            return self.onnx.numpy_helper.from_array(values, key)
        # Page by page, so that a mapping touches only the tensors that are used.
        self._end += self._weights.write(bytes(-self._end % PAGE))
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        proto = self.onnx.TensorProto(name=key, dims=values.shape, data_type=kind)
        proto.data_location = proto.EXTERNAL
        where = {"location": self._location, "offset": self._end, "length": values.nbytes}
        for field, value in where.items():
            proto.external_data.add(key=field, value=str(value))
        self._end += self._weights.write(values.data)
        return proto

    def words(self, table: Array) -> str:
        """Look up the text's tokens: [T, H]."""
        if self.nf4_table:
            packed, scales = quantise_nf4(table)
            codes = self.node("Gather", self.tensor(packed), self.ids)
            codes = self.node("Cast", codes, to=INT32)
            values = self.node("Gather", self.tensor(nf4_pairs()), codes)
            shape = self.integers(-1, scales.shape[1], NF4_BLOCK)
            blocks = self.node("Reshape", values, shape)
            scale = self.node("Gather", self.tensor(scales[:, :, None]), self.ids)
            scaled = self.node("Mul", blocks, self.node("Cast", scale, to=FLOAT))
            return self.node("Reshape", scaled, self.integers(-1, table.shape[1]))
        if not self.quantised:
            return self.node("Gather", self.tensor(table), self.ids)
        narrow, row_scales = quantise_rows(table)
        codes = self.node("Gather", self.tensor(narrow), self.ids)
        factors = self.node("Gather", self.tensor(row_scales[:, None]), self.ids)
        return self.node("Mul", self.node("Cast", codes, to=FLOAT), factors)

    def positions(self, table: Array) -> str:
        """Take as many rows as there are tokens: [T, H]."""
        zero = self.integers(0)
        return self.node("Slice", self.tensor(table), zero, self.length, zero)

    def add(self, a: str, b: str) -> str:
        """Add two tensors."""
        return self.node("Add", a, b)

    def norm(self, x: str, weight: Array, bias: Array) -> str:
        """Apply LayerNorm to each row."""
        options = {"axis": -1, "epsilon": self.config.layer_norm_eps}
        return self.node("LayerNormalization", x, *map(self.tensor, (weight, bias)), **options)

    def linear(
        self, name: str, x: str, weight: Array, bias: Array, calibration: Calibration = PLAIN
    ) -> str:
        """Multiply, in int8 where the graph is quantised."""
        shift, factors, exact = self.tensor(bias), calibration.factors, calibration.exact
        if not self.quantised:
            return self.node("Add", self.node("MatMul", x, self.tensor(weight.T)), shift)
        if factors is None and not len(exact):
            return self.node("Add", self.product_int8(x, weight), shift)
        factors = np.ones(weight.shape[1], np.float32) if factors is None else factors
        small = 1 / factors
        small[exact] = 0
        wide, weight = weight[:, exact], weight * factors
        weight[:, exact] = 0
        if len(exact):
            large = self.node("Gather", x, self.integers(*exact.tolist()), axis=-1)
        x = self.node("Mul", x, self.tensor(small))
        y = self.node("Add", self.product_int8(x, weight), shift)
        return self.exact(name, large, wide, y) if len(exact) else y

    def product_int8(self, x: str, weight: Array) -> str:
        """Multiply in int8, with one scale for all of ``x``."""
        narrow, scale = quantise_rows(weight)
        codes, x_scale, zero = self.nodes("DynamicQuantizeLinear", 3, x)
        no_zeros = self.tensor(np.zeros(len(scale), np.int8))
        products = self.node("MatMulInteger", codes, self.tensor(narrow.T), zero, no_zeros)
        factor = self.node("Mul", x_scale, self.tensor(scale))
        return self.node("Mul", self.node("Cast", products, to=FLOAT), factor)

    def exact(self, name: str, x: str, weight: Array, added: str | Array) -> str:  # noqa: ARG002
        """Multiply in float32, and add."""
        added = added if isinstance(added, str) else self.tensor(added)
        return self.node("Gemm", x, self.tensor(weight.T), added)

    def heads(self, x: str) -> tuple[str, str, str]:
        """Split [T, 3 H] into query, key and value, [h, T, d] each."""
        heads, size = self.config.num_heads, self.config.head_size
        parts = self.node("Reshape", x, self.integers(*self.tokens, 3 * heads, size))
        by_head = self.node("Transpose", parts, perm=self.swapped)
        query, key, value = self.nodes("Split", 3, by_head, axis=self.head_axis, num_outputs=3)
        return query, key, value

    def attend(self, query: str, key: str, value: str, largest: float = math.inf) -> str:  # noqa: ARG002
        """Attend in all heads at once: [T, H]."""
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=self.transposed))
        mixed = self.node("MatMul", self.softmax(scores), value)
        by_token = self.node("Transpose", mixed, perm=self.swapped)
        return self.node("Reshape", by_token, self.integers(*self.tokens, self.config.hidden_size))

    def softmax(self, x: str) -> str:
        """Turn each row of scores into shares."""
        return self.node("Softmax", x, axis=-1)

    def activation(self, x: str, kind: str) -> str:
        """Apply an activation to each element."""
        if not kind.startswith("gelu"):
            return self.node({"relu": "Relu", "tanh": "Tanh"}[kind], x)
        # Among the rounding of many layers the approximation cannot be seen, and it is faster.
        deep = self.config.num_layers > SHALLOW
        if kind == "gelu" and not (self.quantised and deep):
            return self.node("Gelu", x)
        return self.node("Gelu", x, approximate="tanh")

    def first(self, x: str) -> str:
        """Take the first token: [1, H]."""
        return self.node("Slice", x, self.integers(0), self.integers(1), self.integers(0))

    def pool(self, x: str, how: str) -> str:
        """Pool the tokens: [1, H]."""
        if how == "max":
            return self.node("ReduceMax", x, self.integers(0), keepdims=1)
        # A product with a row of 1/length: several times as fast as ReduceMean down the columns.
        ones = self.tensor(np.ones((1, self.config.max_positions), np.float32))
        row = self.node("Slice", ones, self.integers(0), self.length, self.integers(1))
        count = self.node("Cast", self.length, to=FLOAT)
        if how == "mean_sqrt_len_tokens":
            count = self.node("Sqrt", count)
        return self.node("MatMul", self.node("Div", row, count), x)


def sentence_model(
    graph: EncoderGraph,
    name: str,
    tensors: Mapping[str, Array],
    calibration: Sequence[BlockCalibration] = (),
) -> bytes:
    """Return the model that maps `INPUT` int64 [1, tokens] to `OUTPUT` float32 [1, size]."""
    vector = ForwardPass(graph, graph.config, tensors, calibration).sentence_embedding()
    graph.name_output(vector, OUTPUT)
    outputs: Shapes = {OUTPUT: [1, graph.config.embedding_size]}
    return graph.finish(name, {INPUT: [1, "tokens"]}, outputs)


def states_model(graph: EncoderGraph, name: str, tensors: Mapping[str, Array]) -> bytes:
    """Return the model that gives the last hidden states, `STATES` float32 [tokens, hidden]."""
    graph.name_output(ForwardPass(graph, graph.config, tensors).token_states(), STATES)
    outputs: Shapes = {STATES: ["tokens", graph.config.hidden_size]}
    return graph.finish(name, {INPUT: [1, "tokens"]}, outputs)
