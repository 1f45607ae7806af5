"""TFLite's flatbuffer, written directly: a graph of builtin operators over numpy constants.

The schema and its Python classes come with the engine (`ai_edge_litert.schema_py_generated`), so
an export needs no converter. Everything is written in the order in which it was added, hence the
same bytes for the same graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.plugins import require

ANY = -1
"""A dimension that is known only when the model runs."""

_ALIGNMENT = 16
_TYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8"}


class Graph:
    """One subgraph under construction; tensors are named by their index.

    Raises MissingExtra without ``ai-edge-litert``.
    """

    def __init__(self) -> None:
        self._schema = require("ai_edge_litert.schema_py_generated", "export")
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        # By convention the first buffer is empty and belongs to every tensor without data.
        self._buffers: list[Any] = [self._schema.BufferT()]

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32") -> int:
        """Add a tensor without data; `ANY` marks dimensions that change."""
        return self._add(name, shape, dtype)

    def constant(
        self, name: str, value: npt.NDArray[Any], scales: npt.NDArray[np.float32] | None = None
    ) -> int:
        """Add a constant; ``scales`` [rows] make int8 rows mean ``value * scales[:, None]``."""
        data = np.ascontiguousarray(value)
        # float32 and int32 are little-endian in the file, whatever machine writes it.
        data = data.astype(data.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(-1)
        self._buffers.append(_aligned(self._schema, data))
        index = self._add(name, value.shape, value.dtype.name, len(self._buffers) - 1)
        if scales is not None:
            quantization = self._schema.QuantizationParametersT()
            quantization.scale = scales.astype("<f4")
            quantization.zeroPoint = np.zeros(len(scales), "<i8")
            quantization.quantizedDimension = 0
            self._tensors[index].quantization = quantization
        return index

    def operator(
        self, code: str, version: int, inputs: Sequence[int], output: int, **options: Any
    ) -> int:
        """Add a builtin operator and return ``output``.

        ``code`` is a name of the schema's ``BuiltinOperator``; ``options`` are fields of its
        options table, named after ``kind`` (for example ``kind="ReducerOptions"``).
        """
        schema = self._schema
        kind = options.pop("kind", None)
        node = schema.OperatorT()
        node.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        node.inputs, node.outputs = list(inputs), [output]
        if kind:
            node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            node.builtinOptions = getattr(schema, kind + "T")()
            for field, value in options.items():
                setattr(node.builtinOptions, field, value)
        self._operators.append(node)
        return output

    def to_bytes(
        self,
        signature: str,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        description: str,
    ) -> bytes:
        """Return the file: this graph under one signature with named inputs and outputs."""
        schema = self._schema
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())

        definition = schema.SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = signature, 0
        definition.inputs = [schema.TensorMapT(name, index) for name, index in inputs.items()]
        definition.outputs = [schema.TensorMapT(name, index) for name, index in outputs.items()]

        model = schema.ModelT()
        model.version = 3
        model.description = description
        model.operatorCodes = [self._code(*key) for key in self._codes]
        model.subgraphs, model.buffers = [graph], self._buffers
        model.signatureDefs = [definition]
        builder = require("flatbuffers", "export").Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, code: str, version: int) -> Any:
        number = getattr(self._schema.BuiltinOperator, code)
        # Readers from before the 128th operator look at the deprecated field only.
        return self._schema.OperatorCodeT(
            deprecatedBuiltinCode=min(number, 127), version=version, builtinCode=number
        )

    def _add(self, name: str, shape: Sequence[int], dtype: str, buffer: int = 0) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.buffer = name, buffer
        tensor.type = getattr(self._schema.TensorType, _TYPES[dtype])
        tensor.shape = np.array([1 if n == ANY else n for n in shape], "<i4")
        if ANY in shape:
            tensor.shapeSignature = np.array(shape, "<i4")
        tensor.hasRank = True
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _aligned(schema: Any, data: npt.NDArray[np.uint8]) -> Any:
    """Return a buffer whose data is aligned in the file: kernels read it where it is mapped."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802
            # `CreateNumpyVector` would align to the element, one byte.
            size = len(data)
            builder.StartVector(1, size, _ALIGNMENT)
            builder.head = builder.head - size
            builder.Bytes[builder.head : builder.head + size] = data.tobytes()
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return Aligned()
