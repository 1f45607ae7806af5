"""TFLite's file format, written directly: builtin operators over numpy constants.

The schema's classes come with the engine (``ai_edge_litert.schema_py_generated``, from LiteRT's
``schema.fbs``), so no converter is needed, any platform that runs a model can also write one, and
the same graph always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import MissingExtra, UsageError

ANY = -1  # a dimension that is known only when the model runs
SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes; what the schema demands of a buffer's data
GRAPH = 1 << 20  # bytes that suffice for everything but the constants' own
LARGEST = (1 << 31) - 4 * GRAPH  # of constants; a file's offsets have 31 bits
# Operators whose table of options in the schema is not called as they are; "" if there is none.
_TABLES = {
    "BATCH_MATMUL": "BatchMatMul",
    "MAXIMUM": "MaximumMinimum",
    "MINIMUM": "MaximumMinimum",
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "SUM"), "Reducer"),
    **dict.fromkeys(("RELU", "RSQRT", "TANH"), ""),
}


class Graph:
    """One graph under construction: tensors are known by their index. Needs ``ai-edge-litert``."""

    def __init__(self) -> None:
        try:
            import flatbuffers
            from ai_edge_litert import schema_py_generated
        except ImportError:
            raise MissingExtra("ai-edge-litert", "export") from None
        self._flatbuffers: Any = flatbuffers
        self._schema: Any = schema_py_generated
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}  # indices of operators with their versions
        self._bytes = 0  # of the constants
        # By convention the first buffer is empty and belongs to every tensor that is computed.
        self._buffers: list[Any] = [self._schema.BufferT()]

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "float32", *, buffer: int = 0
    ) -> int:
        """Add a tensor, of a ``buffer`` or computed; `ANY` marks dimensions that change."""
        tensor = self._schema.TensorT(name=name, buffer=buffer, hasRank=True)
        tensor.type = getattr(self._schema.TensorType, dtype.upper())
        # Readers allocate for the plain shape until the input is resized; the signature tells
        # them which dimensions may be.
        tensor.shape = np.array([1 if size == ANY else size for size in shape], "<i4")
        if ANY in shape:
            tensor.shapeSignature = np.array(shape, "<i4")
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(
        self, name: str, value: npt.ArrayLike, scales: npt.NDArray[np.float32] | None = None
    ) -> int:
        """Add a constant; with ``scales`` [rows], int8 rows mean ``value * scales[:, None]``."""
        array = np.asarray(value)
        # Often a view of the checkpoint's own, and copied once: into the file.
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        self._bytes += data.nbytes
        if self._bytes > LARGEST:
            raise UsageError("the weights are more than a TFLite file can hold, 2 GB; use int8")
        self._buffers.append(_aligned(self._schema, data))
        index = self.tensor(name, array.shape, array.dtype.name, buffer=len(self._buffers) - 1)
        if scales is not None:
            quantisation = self._schema.QuantizationParametersT()
            quantisation.scale = scales.astype("<f4")
            quantisation.zeroPoint = np.zeros(len(scales), "<i8")
            self._tensors[index].quantization = quantisation
        return index

    def rename(self, index: int, name: str) -> None:
        """Give a tensor its public name."""
        self._tensors[index].name = name

    def operator(
        self,
        code: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        **options: object,
    ) -> None:
        """Add the builtin operator ``code``; ``options`` are fields of its table in the schema.

        ``version`` is the lowest that has them; a reader that does not know it refuses the file.
        """
        node = self._schema.OperatorT()
        key = getattr(self._schema.BuiltinOperator, code), version
        node.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        node.inputs, node.outputs = list(inputs), list(outputs)
        if name := _TABLES.get(code, code.title().replace("_", "")):
            node.builtinOptionsType = getattr(self._schema.BuiltinOptions, f"{name}Options")
            node.builtinOptions = getattr(self._schema, f"{name}OptionsT")()
            for field, value in options.items():
                setattr(node.builtinOptions, field, value)
        self._operators.append(node)

    def to_bytes(self, signature: str, given: int, result: int, description: str) -> memoryview:
        """Return the file, its one input and output named by ``signature`` as by their tensors."""
        schema = self._schema
        graph = schema.SubGraphT(name="main", inputs=[given], outputs=[result])
        graph.tensors, graph.operators = self._tensors, self._operators
        named = schema.SignatureDefT(signatureKey=signature)
        named.inputs, named.outputs = (
            [schema.TensorMapT(name=self._tensors[index].name, tensorIndex=index)]
            for index in (given, result)
        )
        model = schema.ModelT(version=SCHEMA_VERSION, description=description)
        # The old field has a byte; 127 in it means: read the new one.
        model.operatorCodes = [
            schema.OperatorCodeT(min(number, 127), version=version, builtinCode=number)
            for number, version in self._codes
        ]
        model.subgraphs, model.buffers, model.signatureDefs = [graph], self._buffers, [named]
        # Large enough from the start: growing would copy what is there into twice the space.
        builder = self._flatbuffers.Builder(self._bytes + GRAPH)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return memoryview(builder.Bytes)[builder.Head() :]


def _aligned(schema: Any, data: npt.NDArray[np.uint8]) -> Any:
    """Return a buffer aligned for reading where it is mapped; the generated class aligns bytes."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:  # noqa: N802
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head = builder.head - len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data.data
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return Aligned()
