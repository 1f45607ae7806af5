"""ONNX Runtime, opened by path so that it maps the weights, and a check of the graph before it.

An engine reads weights from any file that a tensor names, runs a loop that never ends, and
believes counts. So the graph is first read field by field (protocol buffers' wire format,
``onnx.proto``): only messages and operators that an encoder needs may stand in it, and a tensor's
data lies in the graph or within the one weight file, beside all others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, EngineError, one_line
from asterisk.runtimes.engine import ArtifactEngine, Vector, utf8_path

INPUT, OUTPUT = "input_ids", "sentence_embedding"
WEIGHTS = "weights.bin"
LARGEST_GRAPH = 16 << 20  # bytes; weights do not belong into it
MOST_NODES = 10_000
_ONNX = """
    Add Cast CastLike Clip Concat Constant DequantizeLinear Div DynamicQuantizeLinear Erf Flatten
    Gather GatherElements GatherND Gelu Gemm Identity LayerNormalization MatMul MatMulInteger Max
    Mean Min Mul Neg Pow QLinearMatMul QuantizeLinear Reciprocal ReduceMax ReduceMean ReduceSum Relu
    Reshape Round Shape Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze
    Where
"""
_MICROSOFT = """
    BiasGelu BiasSplitGelu DynamicQuantizeMatMul FastGelu FusedGemm FusedMatMul GatherBlockQuantized
    Gelu MatMulInteger16 MatMulIntegerToFloat MatMulNBits QuickGelu SkipLayerNormalization
"""
# What a graph may compute with, by domain. None of them runs a graph of its own or takes a size
# from what it computes: that is what endless loops and endless memory are made of.
OPERATORS = {"": frozenset(_ONNX.split()), "com.microsoft": frozenset(_MICROSOFT.split())}
OPERATORS["ai.onnx"] = OPERATORS[""]

_VARINT, _BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # the others, and their bytes
# The fields that may stand in ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto.
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR, _EXTERNAL_DATA = 7, 1, 5, 5, 5, 13
_OPERATOR, _DOMAIN, _DIMS, _TYPE, _LOCATION_FIELD = 4, 7, 1, 2, 14
_IN_MODEL = {*range(1, 9), 14}  # no training, no functions
_IN_GRAPH = {_NODE, 2, _INITIALIZER, 10, 11, 12, 13}  # no sparse tensors
_IN_NODE = {1, 2, 3, _OPERATOR, _ATTRIBUTE, 6, _DOMAIN}
_IN_ATTRIBUTE = {1, 2, 3, 4, _TENSOR, 7, 8, 9, 13, 20}  # no graphs
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_LOCATION, _OFFSET, _LENGTH = b"location", b"offset", b"length"
# Bits of an element, by TensorProto.DataType; any other is left to the engine.
_BITS = {1: 32, 2: 8, 3: 8, 6: 32, 7: 64, 9: 8, 10: 16, 16: 16, 21: 4, 22: 4}
_OUTSIDE = "refers to data outside its artifact"


class OnnxEngine(ArtifactEngine):
    """An inference session.

    Threads on one session wait for each other's memory: two on one were 1.7 to 1.8 times as fast as
    one, on two 1.9 times, for the layers' 2 MB once more.
    """

    format: ClassVar[str] = "onnx"

    def __init__(self, artifact: Artifact) -> None:
        ort = plugins.require("onnxruntime", "onnx")
        if WEIGHTS not in artifact.manifest.files:
            raise ArtifactError(f"{artifact.folder}: no hash for {WEIGHTS}")
        path = artifact.entry
        check_graph(path, WEIGHTS)
        try:
            self.session: Any = ort.InferenceSession(
                utf8_path(path), session_options(ort), providers=["CPUExecutionProvider"]
            )
            sides = [*self.session.get_inputs(), *self.session.get_outputs()]
        except Exception as failure:
            raise ArtifactError(f"ONNX Runtime refuses {path}: {one_line(failure)}") from None
        output = (OUTPUT, "tensor(float)", [1, artifact.config.embedding_size])
        expected = [(INPUT, "tensor(int64)", [1, "tokens"]), output]
        if [(side.name, side.type, side.shape) for side in sides] != expected:
            raise ArtifactError(f"{path} has other inputs or outputs than an encoder")

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        try:
            vector: Vector = self.session.run([OUTPUT], {INPUT: np.array([ids], np.int64)})[0][0]
        except Exception as failure:
            raise EngineError(f"ONNX Runtime: {one_line(failure)}") from None
        return vector


def session_options(ort: Any) -> Any:
    """Return the options of one text at a time on one thread, for the module ``onnxruntime``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One text at a time fills an arena of 6 MB at most; without one, activations are mapped
    # and unmapped at every call. A remembered pattern would need the lengths to repeat.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    return options


def check_graph(path: Path, weights: str) -> None:
    """Raise ArtifactError if ``path`` is no graph that is safe to open.

    ``weights`` names the one file beside it that its tensors may lie in.
    """
    if path.stat().st_size > LARGEST_GRAPH:
        raise ArtifactError(f"{path} is too large: weights belong into a file of their own")
    model, beside = path.read_bytes(), path.with_name(weights)
    size = beside.stat().st_size if beside.exists() else 0
    try:
        if model.count(_LOCATION) != _check_model(model, weights.encode(), size):
            raise ArtifactError(_OUTSIDE)
    except (IndexError, ValueError):
        raise ArtifactError(f"{path} is not an ONNX file") from None
    except ArtifactError as failure:
        raise ArtifactError(f"{path} {failure}") from None


def _check_model(model: bytes, weights: bytes, size: int) -> int:
    """Return how many tensors lie in the weight file of ``size`` bytes."""
    spans = []
    nodes = 0
    for graph in _values(_fields(model, _IN_MODEL), _GRAPH):
        for field, value in _fields(graph, _IN_GRAPH):
            if field == _NODE:
                nodes += 1
                _check_node(value)
            elif field == _INITIALIZER and (span := _span(value, weights)):
                spans.append(span)
    if nodes > MOST_NODES:
        raise ArtifactError(f"has {nodes} nodes; {MOST_NODES} are the most")
    free = 0
    for start, end in sorted(spans):
        if start < free:
            raise ArtifactError("has tensors that overlap")
        free = end
    if free > size:
        raise ArtifactError(f"has tensors that end at byte {free} of a weight file of {size}")
    return len(spans)


def _check_node(node: bytes) -> None:
    fields = list(_fields(node, _IN_NODE))
    for attribute in _values(fields, _ATTRIBUTE):
        for tensor in _values(_fields(attribute, _IN_ATTRIBUTE), _TENSOR):
            if {_EXTERNAL_DATA, _LOCATION_FIELD} & dict(_fields(tensor)).keys():
                raise ArtifactError(_OUTSIDE)
    last = dict(fields)
    name, domain = (last.get(field, b"").decode() for field in (_OPERATOR, _DOMAIN))
    if name not in OPERATORS.get(domain, ()):
        raise ArtifactError(f"has an operator that does not belong: {name[:100]!r}")


def _span(tensor: bytes, weights: bytes) -> tuple[int, int] | None:
    """Return where in the weight file a tensor begins and ends; None if it is in the graph."""
    elements, bits = 1, None
    external: dict[bytes, bytes] = {}
    for field, value in _fields(tensor):
        if field == _DIMS:
            elements *= _dimensions(value)
        elif field == _TYPE:
            bits = _BITS.get(_varint(value, 0)[0])
        elif field == _EXTERNAL_DATA:
            entry = list(_fields(value))
            if [number for number, _ in entry] != [_KEY, _VALUE] or entry[0][1] in external:
                raise ArtifactError(_OUTSIDE)
            external[entry[0][1]] = entry[1][1]
    if not external:
        return None
    if external.get(_LOCATION) != weights or external.keys() - {_LOCATION, _OFFSET, _LENGTH}:
        raise ArtifactError(_OUTSIDE)
    start, length = (_decimal(external.get(key, b"0")) for key in (_OFFSET, _LENGTH))
    expected = -(-elements * bits // 8) if bits else length
    if _LENGTH in external and length != expected:
        raise ArtifactError(f"has a tensor of {expected} bytes that is given {length}")
    return start, start + expected


def _dimensions(packed: bytes) -> int:
    """Return the product of one or several dimensions, as they are stored."""
    product, at = 1, 0
    while at < len(packed):
        size, at = _varint(packed, at)
        if size >> 32:
            raise ArtifactError(f"has a dimension of {size}")
        product *= size
    return product


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise ArtifactError("has a place in the weight file that is no number")
    return int(text)


def _values(fields: Iterable[tuple[int, bytes]], number: int) -> Iterator[bytes]:
    return (value for found, value in fields if found == number)


def _fields(message: bytes, allowed: set[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield each field's number and bytes; ValueError or IndexError for what is no message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, field = tag & 7, tag >> 3
        if kind == _VARINT:
            _, end = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            end = at + size
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            raise ValueError(kind)
        if end > len(message):
            raise ValueError(end)
        if allowed is not None and field not in allowed:
            raise ArtifactError(f"has a field that does not belong ({field})")
        yield field, message[at:end]
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at``, and where the next thing begins."""
    value = 0
    for index in range(10):
        byte = message[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(value)
