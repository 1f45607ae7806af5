"""LiteRT on a TFLite file that is mapped, not read."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError, EngineError, MissingExtra, one_line
from asterisk.runtimes.engine import ArtifactEngine, Vector, utf8_path

INPUT, OUTPUT = "input_ids", "sentence_embedding"
_NOTICE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_one_at_a_time = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, which the child has not
    os.register_at_fork(after_in_child=_one_at_a_time._at_fork_reinit)  # type: ignore[attr-defined]


class TfliteEngine(ArtifactEngine):
    """An interpreter with its own copy of the layers' weights in packed form."""

    format: ClassVar[str] = "tflite"

    def __init__(self, artifact: Artifact) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            raise MissingExtra("ai-edge-litert", "tflite") from None
        except (ImportError, OSError) as failure:  # its libraries do not fit this system
            raise EngineError(f"LiteRT cannot start: {one_line(failure)}") from None
        path, size = artifact.entry, artifact.config.embedding_size
        check_file(path)
        self._length = 0
        try:
            with _without_notice():
                interpreter: Any = Interpreter(utf8_path(path), num_threads=1)
                self._interpreter = interpreter
                sides = [*interpreter.get_input_details(), *interpreter.get_output_details()]
                shapes = [(it["name"], it["dtype"], list(it["shape_signature"])) for it in sides]
                if shapes != [(INPUT, np.int32, [1, -1]), (OUTPUT, np.float32, [1, size])]:
                    raise ArtifactError(f"{path} has other inputs or outputs than an encoder")
                self._input, self._output = (it["index"] for it in sides)
                # Packs the weights, and refuses now what would be refused at the first text.
                vector = self._run([artifact.config.vocab_size - 1])
        except ArtifactError:
            raise
        except Exception as failure:
            raise ArtifactError(f"LiteRT refuses {path}: {one_line(failure)}") from None
        if vector.shape != (size,) or not np.isfinite(vector).all():
            raise ArtifactError(f"{path} gives no vector of {size}")

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        try:
            return self._run(ids)
        except Exception as failure:
            raise EngineError(f"LiteRT: {one_line(failure)}") from None

    def close(self) -> None:
        """Release the interpreter and, with the last one, the mapped file."""
        self._interpreter = None

    def _run(self, ids: Sequence[int]) -> Vector:
        interpreter = self._interpreter
        if interpreter is None:
            raise EngineError("the session is closed")
        if len(ids) != self._length:
            self._length = 0  # in case the next lines fail
            interpreter.resize_tensor_input(self._input, [1, len(ids)])
            interpreter.allocate_tensors()
            self._length = len(ids)
        interpreter.set_tensor(self._input, np.array([ids], np.int32))
        interpreter.invoke()
        vector: Vector = interpreter.get_tensor(self._output)[0]
        return vector


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Keep the engine's one line about its delegate off stderr; it has no switch for that.

    What others write there meanwhile is passed on afterwards.
    """
    with _one_at_a_time:
        try:
            stderr = os.dup(2)
        except OSError:  # there is no stderr to keep clean
            yield
            return
        if sys.platform == "linux":
            aside = os.memfd_create("stderr")
        else:  # mypy sees one platform's branch only
            import tempfile

            with tempfile.TemporaryFile() as file:
                aside = os.dup(file.fileno())
        os.dup2(aside, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.lseek(aside, 0, os.SEEK_SET)
            with open(aside, "rb") as file:  # noqa: PTH123 - a descriptor
                for line in file:
                    if line.rstrip() != _NOTICE:
                        os.write(2, line)


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
MOST = 100_000  # elements of a vector other than bytes
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
_LAYOUTS = {name: struct.Struct(f"<{name}") for name in "bBHiIQf"}


def check_file(path: Path) -> None:
    """Raise ArtifactError if ``path`` is no TFLite file that is safe to open."""
    try:
        with path.open("rb") as it, mmap.mmap(it.fileno(), 0, access=mmap.ACCESS_READ) as data:
            root = _number(data, 0, "I")
            if data[4:8] != IDENTIFIER or not 8 <= root <= len(data) - 4:
                raise ArtifactError("is not a TFLite file")
            _check_model(_Table(data, root))
    except (OSError, ValueError):  # ValueError: an empty file
        raise ArtifactError(f"{path} is not a TFLite file") from None
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None


def _check_model(model: _Table) -> None:
    model.allow(_IN_MODEL, "model")
    codes = [_code(code) for code in model.tables(1)]
    buffers = [_buffer(buffer) for buffer in model.tables(4)]
    graphs = list(model.tables(2))
    if len(graphs) != 1:
        raise ArtifactError(f"{len(graphs)} graphs where one is expected")
    (graph,) = graphs
    graph.allow(_IN_GRAPH, "graph")
    tensors = [_tensor(tensor, buffers) for tensor in graph.tables(0)]
    given, results = graph.numbers(1, "i"), graph.numbers(2, "i")
    _check_indices((*given, *results), len(tensors))
    # A tensor has its bytes in the file, is given, or is computed once before it is used. The
    # engine would write over the first, which is mapped, and read what is none of them.
    computed = {index for index, (_, constant) in enumerate(tensors) if constant}
    _add_new(computed, given)
    for operator in graph.tables(3):
        operator.allow(_IN_OPERATOR, "operator")
        code = operator.scalar(0, "I")
        _check_indices([code], len(codes))
        name, rule = OPERATORS[codes[code]]
        sides = operator.numbers(1, "i"), operator.numbers(2, "i")
        used = set(sides[0]) - {_OPTIONAL}
        _check_indices((*used, *sides[1]), len(tensors))
        if not computed.issuperset(used):
            raise ArtifactError(f"{name} uses what is not computed yet")
        _add_new(computed, sides[1])
        kinds = [[None if at == _OPTIONAL else tensors[at][0] for at in side] for side in sides]
        if not _fits(rule, kinds):
            raise ArtifactError(f"{name} with inputs or outputs of other types")
    if not computed.issuperset(results):
        raise ArtifactError("a result that is not computed")


def _add_new(computed: set[int], indices: tuple[int, ...]) -> None:
    if len(set(indices) - computed) != len(indices):
        raise ArtifactError("a tensor that is computed twice, or is a constant too")
    computed.update(indices)


def _fits(rule: str, sides: list[list[int | None]]) -> bool:
    """Tell whether the types of an operator's inputs and outputs are those of its rule."""
    same: set[int] = set()
    for letters, kinds in zip(rule.split(":"), sides, strict=True):
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


def _check_indices(indices: Iterable[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise ArtifactError(f"an index of {index} into a list of {count}")


def _code(code: _Table) -> int:
    code.allow(_IN_CODE, "operator code")
    # Readers take the larger of the old field, one byte, and the new.
    kind = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if kind not in OPERATORS:
        raise ArtifactError(f"an operator that does not belong ({kind})")
    return kind


def _buffer(buffer: _Table) -> int:
    """Return how many bytes a buffer has."""
    if buffer.scalar(1, "Q") or buffer.scalar(2, "Q"):
        raise ArtifactError("data outside the tables")
    return buffer.vector(0, 1)[1]


def _tensor(tensor: _Table, buffers: list[int]) -> tuple[int, bool]:
    """Return a tensor's type and whether its bytes are in the file."""
    tensor.allow(_IN_TENSOR, "tensor")
    shape, kind, buffer = tensor.numbers(0, "i"), tensor.scalar(1, "b"), tensor.scalar(2, "I")
    _check_indices([buffer], len(buffers))
    size = buffers[buffer]
    if kind not in TYPES:
        raise ArtifactError(f"a tensor of a type that does not belong ({kind})")
    if len(shape) > _MOST_DIMENSIONS or any(length < 0 for length in shape):
        raise ArtifactError("a tensor of no possible shape")
    elements = math.prod(shape)
    if not size and elements > _MOST_COMPUTED:
        raise ArtifactError(f"a tensor {list(shape)} that is computed for one token")
    if size and size != -(-elements * TYPES[kind] // 8):
        raise ArtifactError(f"a tensor {list(shape)} of {size} bytes")
    if quantisation := tensor.table(4):
        _check_quantisation(quantisation, shape)
    return kind, bool(size)


def _check_quantisation(quantisation: _Table, shape: tuple[int, ...]) -> None:
    # A scale for all of a tensor or for each row along one dimension.
    scales, axis = quantisation.numbers(2, "f"), quantisation.scalar(6, "i")
    zeros = quantisation.vector(3, 8)[1]
    if quantisation.scalar(4, "B") not in (0, _BLOCKWISE):
        raise ArtifactError("a quantisation that does not belong")
    if not all(0 < scale < math.inf for scale in scales):
        raise ArtifactError("a scale that is no positive number")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise ArtifactError(f"{len(scales)} scales for a tensor {list(shape)}")
    if zeros not in (0, 1, len(scales)):
        raise ArtifactError(f"{zeros} zero points for {len(scales)} scales")


class _Table:
    """A flatbuffer's table at a byte of the file; a field goes by its number in the schema.

    Kinds of numbers are `struct`'s letters. An absent number is 0, an absent vector empty.
    """

    __slots__ = ("_at", "_data", "_fields", "_size")

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data, self._at = data, at
        start = at - _number(data, at, "i")
        length = _number(data, start, "H")
        self._size = _number(data, start + 2, "H")
        if length % 2 or length < 4 or start + length > len(data) or at + self._size > len(data):
            raise ArtifactError("a table that leaves the file")
        self._fields: tuple[int, ...] = struct.unpack_from(f"<{length // 2 - 2}H", data, start + 4)

    def allow(self, fields: set[int], what: str) -> None:
        """Check that the table has only these fields."""
        if extra := {index for index, offset in enumerate(self._fields) if offset} - fields:
            raise ArtifactError(f"a {what} with a field that does not belong ({min(extra)})")

    def scalar(self, field: int, kind: str) -> int:
        at = self._position(field, _LAYOUTS[kind].size)
        return _number(self._data, at, kind) if at else 0

    def table(self, field: int) -> _Table | None:
        at = self._target(field)
        return _Table(self._data, at) if at else None

    def tables(self, field: int) -> Iterator[_Table]:
        start, _ = self.vector(field, 4)
        for index, offset in enumerate(self.numbers(field, "I")):
            yield _Table(self._data, start + 4 * index + offset)

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Return where a vector of elements of ``size`` bytes begins, and how many it has."""
        if not (at := self._target(field)):
            return 0, 0
        count = _number(self._data, at, "I")
        if at + 4 + count * size > len(self._data):
            raise ArtifactError("a list that leaves the file")
        return at + 4, count

    def numbers(self, field: int, kind: str) -> tuple[int, ...]:
        start, count = self.vector(field, _LAYOUTS[kind].size)
        if count > MOST:
            raise ArtifactError(f"a list of {count} where {MOST} is the most")
        found: tuple[int, ...] = struct.unpack_from(f"<{count}{kind}", self._data, start)
        return found

    def _position(self, field: int, size: int) -> int:
        """Return where a field of ``size`` bytes is in the file, 0 if it is absent."""
        if field >= len(self._fields) or not (offset := self._fields[field]):
            return 0
        if offset + size > self._size:
            raise ArtifactError("a field that leaves its table")
        return self._at + offset

    def _target(self, field: int) -> int:
        at = self._position(field, 4)
        return at + _number(self._data, at, "I") if at else 0


def _number(data: mmap.mmap, at: int, kind: str) -> int:
    """Return the number at byte ``at``; ArtifactError if it leaves the file."""
    layout = _LAYOUTS[kind]
    if not 0 <= at <= len(data) - layout.size:
        raise ArtifactError("an offset that leaves the file")
    found: int = layout.unpack_from(data, at)[0]
    return found
