"""Look through a TFLite graph before an engine does.

LiteRT follows the offsets of a file, opens other files that it names, calls itself, and takes a
custom operator's name for a promise. Here every table that it will follow is followed first, and
only what `asterisk.exporters.flatbuffer` writes may stand in one. Layout: LiteRT's ``schema.fbs``.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable
from pathlib import Path

from asterisk.common.errors import ArtifactError
from asterisk.runtimes.flatbuffer import Table, number

IDENTIFIER = b"TFL3"  # at byte 4; before it, where the root table begins
# What a graph may compute with, by BuiltinOperator, and the types of its inputs and outputs: f is
# float32, i is int32, q a table or matrix, T one type throughout, R one type that is only copied,
# a is any; * repeats the last.
# None of them runs another graph, keeps anything between two texts or takes a size from what it
# computes, and none checks all the types that it relies on.
OPERATORS = {
    **{0: ("ADD", "TT:T"), 18: ("MUL", "TT:T"), 41: ("SUB", "TT:T"), 42: ("DIV", "TT:T")},
    **{55: ("MAXIMUM", "TT:T"), 57: ("MINIMUM", "TT:T"), 99: ("SQUARED_DIFFERENCE", "TT:T")},
    **{14: ("LOGISTIC", "f:f"), 28: ("TANH", "f:f"), 47: ("EXP", "f:f"), 59: ("NEG", "T:T")},
    **{75: ("SQRT", "f:f"), 76: ("RSQRT", "f:f"), 92: ("SQUARE", "T:T"), 150: ("GELU", "f:f")},
    **{78: ("POW", "ff:f"), 25: ("SOFTMAX", "f:f"), 126: ("BATCH_MATMUL", "ff:f")},
    **{9: ("FULLY_CONNECTED", "fqf:f"), 40: ("MEAN", "fi:f"), 74: ("SUM", "Ti:T")},
    **{128: ("CUMSUM", "Ti:T"), 22: ("RESHAPE", "Ti:T"), 39: ("TRANSPOSE", "Ti:T")},
    **{36: ("GATHER", "Ri:R"), 7: ("EMBEDDING_LOOKUP", "iq:f"), 53: ("CAST", "a:a")},
    **{6: ("DEQUANTIZE", "q:f"), 114: ("QUANTIZE", "f:q"), 43: ("SQUEEZE", "T:T")},
    **{70: ("EXPAND_DIMS", "Ti:T"), 45: ("STRIDED_SLICE", "Tiii:T"), 65: ("SLICE", "Tii:T")},
    **{49: ("SPLIT", "iT:T*"), 102: ("SPLIT_V", "Tii:T*"), 2: ("CONCATENATION", "T*:T")},
    **{83: ("PACK", "T*:T"), 77: ("SHAPE", "a:i")},
    **{19: ("RELU", "f:f"), 82: ("REDUCE_MAX", "fi:f")},
}
# Bits of an element, by TensorType: float32, float16, int32, uint8, int64, bool, int16, int8, int4.
TYPES = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 9: 8, 17: 4}
_LETTERS = {
    **{"f": {0}, "i": {2}, "q": {0, 1, 3, 9, 17}, "T": {0, 2, 4, 7, 9}},
    **{"R": {0, 1, 2, 3, 4, 7, 9}, "a": {0, 1, 2, 3, 4, 6, 9}},
}
# The fields that may stand in Model, SubGraph, OperatorCode, Tensor and Operator.
_IN_MODEL = {0, 1, 2, 3, 4, 7}  # no metadata, no external buffers
_IN_GRAPH = {0, 1, 2, 3, 4, 5}
_IN_CODE = {0, 2, 3}  # no custom code
_IN_TENSOR = {0, 1, 2, 3, 4, 7, 8}  # no variables, no sparse or external data
_IN_OPERATOR = {0, 1, 2, 3, 4, 13}  # no custom options
_OPTIONAL = -1  # the index of an input that is left out
_BLOCKWISE = 2  # of QuantizationDetails
_MOST_DIMENSIONS = 8
_MOST_COMPUTED = 1 << 18  # elements that a tensor may have for one token, before any is computed


def check_file(path: Path) -> None:
    """Raise ArtifactError if ``path`` is no TFLite file that is safe to open."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            root = number(data, 0, "I")
            if data[4:8] != IDENTIFIER or not 8 <= root <= len(data) - 4:
                raise ArtifactError("is not a TFLite file")
            _check_model(Table(data, root))
    except (OSError, ValueError):  # ValueError: an empty file
        raise ArtifactError(f"{path} is not a TFLite file") from None
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None


def _check_model(model: Table) -> None:
    _only(model, _IN_MODEL, "model")
    codes = [_code(code) for code in model.tables(1)]
    buffers = [_buffer(buffer) for buffer in model.tables(4)]
    graphs = list(model.tables(2))
    if len(graphs) != 1:
        raise ArtifactError(f"{len(graphs)} graphs where one is expected")
    (graph,) = graphs
    _only(graph, _IN_GRAPH, "graph")
    tensors = [_tensor(tensor, buffers) for tensor in graph.tables(0)]
    given, results = graph.numbers(1, "i"), graph.numbers(2, "i")
    _within((*given, *results), len(tensors))
    # A tensor has its bytes in the file, is given, or is computed once before it is used. The
    # engine would write over the first, which is mapped, and read what is none of them.
    known = {index for index, (_, constant) in enumerate(tensors) if constant}
    _new(known, given)
    for operator in graph.tables(3):
        _only(operator, _IN_OPERATOR, "operator")
        _within([operator.scalar(0, "I")], len(codes))
        name, rule = OPERATORS[codes[operator.scalar(0, "I")]]
        inputs, outputs = operator.numbers(1, "i"), operator.numbers(2, "i")
        _within([*(index for index in inputs if index != _OPTIONAL), *outputs], len(tensors))
        if not known.issuperset(set(inputs) - {_OPTIONAL}):
            raise ArtifactError(f"{name} uses what is not computed yet")
        _new(known, outputs)
        kinds = [
            [None if index == _OPTIONAL else tensors[index][0] for index in side]
            for side in (inputs, outputs)
        ]
        if not _fits(rule, *kinds):
            raise ArtifactError(f"{name} with inputs or outputs of other types")
    if not known.issuperset(results):
        raise ArtifactError("a result that is not computed")


def _new(known: set[int], indices: tuple[int, ...]) -> None:
    if len(set(indices) - known) != len(indices):
        raise ArtifactError("a tensor that is computed twice, or is a constant too")
    known.update(indices)


def _fits(rule: str, inputs: list[int | None], outputs: list[int | None]) -> bool:
    """Tell whether the types of an operator's tensors are those of its rule."""
    same: set[int] = set()
    for letters, kinds in zip(rule.split(":"), (inputs, outputs), strict=True):
        spelt = letters.replace("*", "") + letters[-2:-1] * (len(kinds) - 1) * ("*" in letters)
        # The last inputs may be left out: a bias, or a shape that stands in the options.
        if not spelt or len(kinds) > len(spelt) or None in kinds[:1]:
            return False
        for letter, kind in zip(spelt, kinds, strict=False):
            if kind is not None and kind not in _LETTERS[letter]:
                return False
            if letter in "TR" and kind is not None:
                same.add(kind)
    return len(same) <= 1


def _only(table: Table, allowed: set[int], what: str) -> None:
    if extra := table.present() - allowed:
        raise ArtifactError(f"a {what} with a field that does not belong ({min(extra)})")


def _within(indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ArtifactError(f"an index of {index} into a list of {count}")


def _code(code: Table) -> int:
    _only(code, _IN_CODE, "operator code")
    # Readers take the larger of the old field, one byte, and the new.
    kind = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if kind not in OPERATORS:
        raise ArtifactError(f"an operator that does not belong ({kind})")
    return kind


def _buffer(buffer: Table) -> int:
    """Return how many bytes a buffer has; they lie within the tables, not behind them."""
    if buffer.scalar(1, "Q") or buffer.scalar(2, "Q"):
        raise ArtifactError("data outside the tables")
    return buffer.vector(0, 1)[1]


def _tensor(tensor: Table, buffers: list[int]) -> tuple[int, bool]:
    """Return a tensor's type and whether its bytes are in the file."""
    _only(tensor, _IN_TENSOR, "tensor")
    shape, kind, place = tensor.numbers(0, "i"), tensor.scalar(1, "b"), tensor.scalar(2, "I")
    _within([place], len(buffers))
    if kind not in TYPES:
        raise ArtifactError(f"a tensor of a type that does not belong ({kind})")
    if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise ArtifactError("a tensor of no possible shape")
    if not buffers[place] and math.prod(shape) > _MOST_COMPUTED:
        raise ArtifactError(f"a tensor {list(shape)} that is computed for one token")
    if buffers[place] and buffers[place] != -(-math.prod(shape) * TYPES[kind] // 8):
        raise ArtifactError(f"a tensor {list(shape)} of {buffers[place]} bytes")
    if rounding := tensor.table(4):
        _check_rounding(rounding, shape)
    return kind, bool(buffers[place])


def _check_rounding(rounding: Table, shape: tuple[int, ...]) -> None:
    """Check that there is a scale for all of a tensor or for each row along one dimension."""
    scales, axis = rounding.numbers(2, "f"), rounding.scalar(6, "i")
    zeros = rounding.vector(3, 8)[1]
    if rounding.scalar(4, "B") not in (0, _BLOCKWISE):
        raise ArtifactError("a quantisation that does not belong")
    if not all(0 < scale < math.inf for scale in scales):
        raise ArtifactError("a scale that is no positive number")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise ArtifactError(f"{len(scales)} scales for a tensor {list(shape)}")
    if zeros not in (0, 1, len(scales)):
        raise ArtifactError(f"{zeros} zero points for {len(scales)} scales")
