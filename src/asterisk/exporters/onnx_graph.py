"""Writing an ONNX graph: nodes, weights beside the model, and the encoder's operators."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from asterisk.common import plugins
from asterisk.exporters.forward import PLAIN, Array, Cure
from asterisk.exporters.nf4 import BLOCK, pairs, quantise_nf4
from asterisk.exporters.rounding import quantise_rows
from asterisk.exporters.thresholds import SHALLOW
from asterisk.model.config import ModelConfig

OPSET = 20
IR_VERSION = 10
INLINE = 1_024  # bytes; smaller tensors stay in the model file
PAGE = 4_096
FLOAT, UINT8, INT32 = 1, 2, 6  # onnx.TensorProto.DataType
INPUT = "input_ids"
Shape = Sequence[int | str]


class Graph:
    """A graph under construction; a value is known by its name.

    Weights go to the file ``weights`` as they are met, so that none is held; the model names that
    file ``location``. Without one they are part of the model.
    """

    def __init__(self, weights: BinaryIO | None, location: str) -> None:
        self.onnx = plugins.require("onnx", "export")
        self._weights, self._location = weights, location
        self._end = 0  # of the weight file
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []
        self._known: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.nodes(kind, 1, *inputs, **attributes)[0]

    def nodes(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node and return the names of its outputs."""
        number = len(self._nodes)
        names = [f"{kind}_{number}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self._nodes.append(
            self.onnx.helper.make_node(kind, inputs, names, name=f"{kind}_{number}", **attributes)
        )
        return names

    def tensor(self, values: npt.NDArray[Any]) -> str:
        """Add a constant, once however often it is used, and return its name."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        key = (values.dtype.str, hashlib.sha256(values.data).digest(), values.shape)
        if key not in self._known:
            self._known[key] = f"tensor_{len(self._tensors)}"
            self._tensors.append(self._initializer(self._known[key], values))
        return self._known[key]

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.tensor(np.array(values, np.int64))

    def name_output(self, value: str, name: str) -> None:
        """Give the last node's output ``value`` its public name."""
        for index, output in enumerate(self._nodes[-1].output):
            if output == value:
                self._nodes[-1].output[index] = name

    def finish(
        self,
        name: str,
        *,
        inputs: Mapping[str, tuple[Any, Shape]],
        outputs: Mapping[str, tuple[Any, Shape]],
    ) -> bytes:
        """Return the model's bytes."""
        helper = self.onnx.helper

        def described(values: Mapping[str, tuple[Any, Shape]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    key, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), list(shape)
                )
                for key, (kind, shape) in values.items()
            ]

        graph = helper.make_graph(
            self._nodes, name, described(inputs), described(outputs), self._tensors
        )
        model = helper.make_model(
            graph,
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
        self._write(self._weights, bytes(-self._end % PAGE))
        proto = self.onnx.TensorProto(
            name=key,
            dims=values.shape,
            data_type=self.onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=self.onnx.TensorProto.EXTERNAL,
        )
        where = {"location": self._location, "offset": self._end, "length": values.nbytes}
        for field, value in where.items():
            proto.external_data.add(key=field, value=str(value))
        self._write(self._weights, values.data)
        return proto

    def _write(self, weights: BinaryIO, data: bytes | memoryview) -> None:
        weights.write(data)
        self._end += memoryview(data).nbytes


class EncoderGraph(Graph):
    """The encoder's operators (`asterisk.exporters.forward`) for one text.

    ``quantised`` makes products and the token table int8; ``nf4_table`` makes the table NF4.
    Without a dimension for a batch of one, a small model is 4 percent faster.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: BinaryIO | None,
        location: str,
        *,
        quantised: bool,
        nf4_table: bool = False,
    ) -> None:
        super().__init__(weights, location)
        self.config, self.quantised, self.nf4_table = config, quantised, nf4_table
        self.length = self.node("Shape", INPUT, start=1, end=2)
        self.ids = self.node("Reshape", INPUT, self.integers(-1))

    def words(self, table: Array) -> str:
        """Look up the text's tokens: [T, H]."""
        if self.nf4_table:
            return self._rows_nf4(table)
        if not self.quantised:
            return self.node("Gather", self.tensor(table), self.ids)
        narrow, scale = quantise_rows(table)
        codes = self.node("Gather", self.tensor(narrow), self.ids)
        factors = self.node("Gather", self.tensor(scale[:, None]), self.ids)
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
        parameters = self.tensor(weight), self.tensor(bias)
        epsilon = self.config.layer_norm_eps
        return self.node("LayerNormalization", x, *parameters, axis=-1, epsilon=epsilon)

    def linear(self, name: str, x: str, weight: Array, bias: Array, cure: Cure = PLAIN) -> str:
        """Multiply, in int8 where the graph is quantised."""
        shift, exact = self.tensor(bias), cure.exact
        if not self.quantised:
            return self.node("Add", self.node("MatMul", x, self.tensor(weight.T)), shift)
        if cure.factors is not None or len(exact):
            factors = np.ones(weight.shape[1], np.float32)
            factors = factors if cure.factors is None else cure.factors
            small = 1 / factors
            small[exact] = 0
            wide, weight = weight[:, exact], weight * factors
            weight[:, exact] = 0
            if len(exact):
                large = self.node("Gather", x, self.integers(*exact.tolist()), axis=-1)
            x = self.node("Mul", x, self.tensor(small))
        y = self.node("Add", self._product_int8(x, weight), shift)
        return self.exact(name, large, wide, y) if len(exact) else y

    def exact(self, name: str, x: str, weight: Array, added: str | Array) -> str:  # noqa: ARG002
        """Multiply in float32, and add."""
        added = added if isinstance(added, str) else self.tensor(added)
        return self.node("Gemm", x, self.tensor(weight.T), added)

    def heads(self, x: str) -> tuple[str, str, str]:
        """Split [T, 3 H] into query, key and value, [h, T, d] each."""
        heads, size = self.config.num_heads, self.config.head_size
        parts = self.node("Reshape", x, self.integers(-1, 3 * heads, size))
        by_head = self.node("Transpose", parts, perm=[1, 0, 2])
        query, key, value = self.nodes("Split", 3, by_head, axis=0, num_outputs=3)
        return query, key, value

    def attend(self, query: str, key: str, value: str, largest: float = math.inf) -> str:  # noqa: ARG002
        """Attend in all heads at once: [T, H]."""
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 2, 1]))
        mixed = self.node("MatMul", self.softmax(scores), value)
        by_token = self.node("Transpose", mixed, perm=[1, 0, 2])
        return self.node("Reshape", by_token, self.integers(-1, self.config.hidden_size))

    def softmax(self, x: str) -> str:
        """Turn each row of scores into shares."""
        return self.node("Softmax", x, axis=-1)

    def activation(self, x: str, kind: str) -> str:
        """Apply an activation to each element."""
        if kind.startswith("gelu"):
            # Among the rounding of many layers the approximation cannot be seen, and it is faster.
            deep = self.config.num_layers > SHALLOW
            if kind == "gelu" and not (self.quantised and deep):
                return self.node("Gelu", x)
            return self.node("Gelu", x, approximate="tanh")
        return self.node({"relu": "Relu", "tanh": "Tanh"}[kind], x)

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

    def _product_int8(self, x: str, weight: Array) -> str:
        narrow, scale = quantise_rows(weight)
        codes, x_scale, zero = self.nodes("DynamicQuantizeLinear", 3, x)
        no_zeros = self.tensor(np.zeros(len(scale), np.int8))
        whole = self.node("MatMulInteger", codes, self.tensor(narrow.T), zero, no_zeros)
        factor = self.node("Mul", x_scale, self.tensor(scale))
        return self.node("Mul", self.node("Cast", whole, to=FLOAT), factor)

    def _rows_nf4(self, table: Array) -> str:
        packed, scales = quantise_nf4(table)
        width = table.shape[1]
        codes = self.node("Gather", self.tensor(packed), self.ids)
        values = self.node("Gather", self.tensor(pairs()), self.node("Cast", codes, to=INT32))
        blocks = self.node("Reshape", values, self.integers(-1, width // BLOCK, BLOCK))
        scale = self.node("Gather", self.tensor(scales[:, :, None]), self.ids)
        scaled = self.node("Mul", blocks, self.node("Cast", scale, to=FLOAT))
        return self.node("Reshape", scaled, self.integers(-1, width))
