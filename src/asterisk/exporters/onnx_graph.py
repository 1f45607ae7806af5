"""Writing an ONNX graph: nodes, weights beside the model, and what int8 does to both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk import plugins
from asterisk.exporters.nf4 import BLOCK, pairs, quantise_nf4
from asterisk.exporters.rounding import quantise_rows

OPSET = 20
IR_VERSION = 10
INLINE = 1_024  # bytes; smaller tensors stay in the model file
PAGE = 4_096
GROUPS = 3  # of narrow columns in a mixed product, each with scales of its own
Shape = Sequence[int | str]


class Graph:
    """A graph under construction; a value is known by its name.

    ``quantised`` turns `product` and `rows` into int8.
    """

    def __init__(self, *, quantised: bool) -> None:
        self.onnx = plugins.require("onnx", "export")
        self.quantised = quantised
        self._nodes: list[Any] = []
        self._tensors: dict[str, npt.NDArray[Any]] = {}
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
        values = np.ascontiguousarray(values)
        key = (values.dtype.str, values.tobytes(), values.shape)
        if key not in self._known:
            self._known[key] = f"tensor_{len(self._tensors)}"
            self._tensors[self._known[key]] = values
        return self._known[key]

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.tensor(np.array(values, np.int64))

    def product(self, x: str, weight: npt.NDArray[np.float32], *, exact: bool = False) -> str:
        """Multiply ``x`` [..., in] by ``weight`` [out, in], transposed; ``exact`` in float32."""
        if exact or not self.quantised:
            return self.node("MatMul", x, self.tensor(weight.T))
        narrow, scale = quantise_rows(weight)
        codes, x_scale, zero = self.nodes("DynamicQuantizeLinear", 3, x)
        whole = self.node(
            "MatMulInteger",
            codes,
            self.tensor(narrow.T),
            zero,
            self.tensor(np.zeros(len(scale), np.int8)),
        )
        factor = self.node("Mul", x_scale, self.tensor(scale))
        floats = self.node("Cast", whole, to=self.onnx.TensorProto.FLOAT)
        return self.node("Mul", floats, factor)

    def mixed_product(self, x: str, weight: npt.NDArray[np.float32], wide: int) -> str:
        """Multiply as `product` does, but the last ``wide`` columns of ``weight`` in float32.

        LLM.int8()'s decomposition (arXiv:2208.07339, section 3.2): a few columns of large values
        would set the scale of all others. Those others are taken in groups, for the same reason.
        """
        narrow = np.array_split(np.arange(weight.shape[1] - wide), GROUPS)
        sizes = [*map(len, narrow), wide]
        parts = self.nodes("Split", len(sizes), x, self.integers(*sizes), axis=-1)
        columns = np.split(weight, np.cumsum(sizes)[:-1], axis=1)
        total = self.product(parts[-1], columns[-1], exact=True)
        for part, column in zip(parts[:-1], columns[:-1], strict=True):
            total = self.node("Add", total, self.product(part, column))
        return total

    def rows(self, table: npt.NDArray[np.float32], ids: str = "input_ids") -> str:
        """Look up the rows of ``table`` [n, d] at ``ids``."""
        if not self.quantised:
            return self.node("Gather", self.tensor(table), ids)
        narrow, scale = quantise_rows(table)
        codes = self.node("Gather", self.tensor(narrow), ids)
        floats = self.node("Cast", codes, to=self.onnx.TensorProto.FLOAT)
        return self.node("Mul", floats, self.node("Gather", self.tensor(scale[:, None]), ids))

    def rows_nf4(self, table: npt.NDArray[np.float32], ids: str) -> str:
        """Look up the rows of ``table`` [n, d], stored in NF4, at ``ids`` [tokens]."""
        packed, scales = quantise_nf4(table)
        width, kinds = table.shape[1], self.onnx.TensorProto
        codes = self.node("Gather", self.tensor(packed), ids)
        indices = self.node("Cast", codes, to=kinds.INT32)
        values = self.node("Gather", self.tensor(pairs()), indices)
        blocks = self.node("Reshape", values, self.integers(-1, width // BLOCK, BLOCK))
        picked = self.node("Gather", self.tensor(scales[:, :, None]), ids)
        scaled = self.node("Mul", blocks, self.node("Cast", picked, to=kinds.FLOAT))
        return self.node("Reshape", scaled, self.integers(-1, width))

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
        location: str,
    ) -> tuple[bytes, bytes]:
        """Return the model's bytes and those of its weight file, called ``location``."""
        helper = self.onnx.helper
        weights = bytearray()
        initializers = []
        for key, values in self._tensors.items():
            initializers.append(self._initializer(key, values, weights, location))

        def described(values: Mapping[str, tuple[Any, Shape]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    key, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), list(shape)
                )
                for key, (kind, shape) in values.items()
            ]

        graph = helper.make_graph(
            self._nodes, name, described(inputs), described(outputs), initializers
        )
        model = helper.make_model(
            graph,
            producer_name="asterisk",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        return model.SerializeToString(deterministic=True), bytes(weights)

    def _initializer(
        self, key: str, values: npt.NDArray[Any], weights: bytearray, location: str
    ) -> Any:
        if values.nbytes < INLINE:
            return self.onnx.numpy_helper.from_array(values, key)
        # Page by page, so that a mapping touches only the tensors that are used.
        weights.extend(bytes(-len(weights) % PAGE))
        proto = self.onnx.TensorProto(
            name=key,
            dims=values.shape,
            data_type=self.onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            data_location=self.onnx.TensorProto.EXTERNAL,
        )
        where = {"location": location, "offset": str(len(weights)), "length": str(values.nbytes)}
        for field, value in where.items():
            proto.external_data.add(key=field, value=value)
        weights.extend(values.tobytes())
        return proto
