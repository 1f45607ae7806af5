"""The encoder as a TFLite graph of any length: token ids [1, T] in, one vector [1, d] out.

The length is the leading dimension of what is two-dimensional, and no shape holds it twice except
scores. Every size follows from the input's without running anything: an interpreter plans a new
length in microseconds. From the two tables' rows on, XNNPACK takes the whole graph.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from asterisk.exporters.flatbuffer import ANY, Graph, Operator
from asterisk.exporters.forward import PLAIN, Array, Cure
from asterisk.exporters.nf4 import BLOCK, pairs, quantise_nf4
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.config import ModelConfig

INPUT = "input_ids"

ADD = Operator("ADD", "AddOptions")
BATCH_MATMUL = Operator("BATCH_MATMUL", "BatchMatMulOptions")
CAST = Operator("CAST", "CastOptions")
CUMSUM = Operator("CUMSUM", "CumsumOptions")
DIV = Operator("DIV", "DivOptions")
EXP = Operator("EXP", "ExpOptions")
GATHER = Operator("GATHER", "GatherOptions")
GATHER_INT8 = Operator("GATHER", "GatherOptions", 2)
GELU = Operator("GELU", "GeluOptions")
LINEAR = Operator("FULLY_CONNECTED", "FullyConnectedOptions", 5)  # any rank
LINEAR_INT8 = Operator("FULLY_CONNECTED", "FullyConnectedOptions", 12)  # a scale for each row
MAX = Operator("REDUCE_MAX", "ReducerOptions")
MAXIMUM = Operator("MAXIMUM", "MaximumMinimumOptions")
MEAN = Operator("MEAN", "ReducerOptions")
MINIMUM = Operator("MINIMUM", "MaximumMinimumOptions")
MUL = Operator("MUL", "MulOptions")
RELU = Operator("RELU")
RESHAPE = Operator("RESHAPE", "ReshapeOptions")
RSQRT = Operator("RSQRT")
SLICE = Operator("SLICE", "SliceOptions")
SOFTMAX = Operator("SOFTMAX", "SoftmaxOptions")
SPLIT = Operator("SPLIT", "SplitOptions")
SUB = Operator("SUB", "SubOptions")
SUM = Operator("SUM", "ReducerOptions")
TANH = Operator("TANH")
TRANSPOSE = Operator("TRANSPOSE", "TransposeOptions")

LARGEST_SCORE = 40.0  # on samples: other texts may have larger ones
CLIP = 80.0  # exp(80) times 10,000 tokens is still a float32, and exp(-80) not yet zero
_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}  # numbers of the schema


class EncoderGraph(Graph):
    """The encoder's operators (`asterisk.exporters.forward`); tensors are known by index.

    ``int8`` makes products and the token table int8; ``nf4_table`` makes the table NF4.
    """

    def __init__(self, config: ModelConfig, *, int8: bool, nf4_table: bool = False) -> None:
        super().__init__()
        self.config, self.int8 = config, int8
        self.look_up = self._rows_nf4 if nf4_table else self._rows if int8 else self._gather
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.shared: dict[str, int] = {}
        self.ids = self.tensor(INPUT, (1, ANY), "int32")
        flat = self.integers("flat", [ANY])
        self.flat = self.apply(RESHAPE, [self.ids, flat], (ANY,), "int32", newShape=[ANY])
        zeros = self.apply(SUB, [self.flat, self.flat], (ANY,), "int32")
        self.ones = self.apply(ADD, [zeros, self.integers("one", [1])], (ANY,), "int32")

    def words(self, table: Array) -> int:
        """Look up the text's tokens: [T, H]."""
        return self.look_up("word", table, self.flat)

    def positions(self, table: Array) -> int:
        """Take as many rows as there are tokens: [T, H]."""
        # Counting the tokens up to each one, rather than slicing by a length that is itself
        # computed: a tensor of computed size would be outside XNNPACK, and all after it too.
        axis = self.integers("tokens", 0)
        places = self.apply(CUMSUM, [self.ones, axis], (ANY,), "int32", exclusive=True)
        return self._gather("position", table, places)

    def add(self, a: int, b: int) -> int:
        """Add two tensors."""
        return self.apply(ADD, [a, b], self.shapes[a])

    def norm(self, x: int, weight: Array, bias: Array) -> int:
        """Apply LayerNorm to each row."""
        full = self.shapes[x]
        column = (full[0], 1)
        last = self.integers("last", [-1])
        if "epsilon" not in self.shared:
            epsilon = np.float32(self.config.layer_norm_eps)
            self.shared["epsilon"] = self.constant("epsilon", epsilon)
        mean = self.apply(MEAN, [x, last], column, keepDims=True)
        centred = self.apply(SUB, [x, mean], full)
        squares = self.apply(MUL, [centred, centred], full)
        variance = self.apply(MEAN, [squares, last], column, keepDims=True)
        above_zero = self.apply(ADD, [variance, self.shared["epsilon"]], column)
        unit = self.apply(MUL, [centred, self.apply(RSQRT, [above_zero], column)], full)
        scaled = self.apply(MUL, [unit, self.constant("norm.weight", weight)], full)
        return self.apply(ADD, [scaled, self.constant("norm.bias", bias)], full)

    def linear(self, name: str, x: int, weight: Array, bias: Array, cure: Cure = PLAIN) -> int:
        """Multiply, under int8 with each row of ``x`` quantised by itself as XNNPACK runs.

        With a scale for each row, calibration asks for no exact channels here.
        """
        if not self.int8:
            return self._product(LINEAR, name, x, self.constant(f"{name}.weight", weight), bias)
        if cure.factors is not None:
            smooth = self.constant(f"{name}.factors", 1 / cure.factors)
            x, weight = self.apply(MUL, [x, smooth], self.shapes[x]), weight * cure.factors
        matrix = self.constant(f"{name}.weight", *quantise_rows(weight))
        return self._product(LINEAR_INT8, name, x, matrix, bias)

    def exact(self, name: str, x: int, weight: Array, added: int | Array) -> int:
        """Multiply in float32, and add a bias or a tensor."""
        matrix = self.constant(f"{name}.weight", weight)
        if not isinstance(added, int):
            return self._product(LINEAR, name, x, matrix, added)
        bias = np.zeros(len(weight), np.float32)
        return self.add(self._product(LINEAR, name, x, matrix, bias), added)

    def heads(self, x: int) -> tuple[int, int, int]:
        """Split [T, 3 H] into query, key and value, [h, T, d] each."""
        heads, size = self.config.num_heads, self.config.head_size
        parts = self._reshape(x, (ANY, 3 * heads, size))
        by_head = self._transpose(parts, (3 * heads, ANY, size))
        query, key, value = (self.new((heads, ANY, size)) for _ in range(3))
        axis = self.integers("heads", 0)
        self.operator(SPLIT, [axis, by_head], [query, key, value], numSplits=3)
        return query, key, value

    def attend(self, query: int, key: int, value: int, largest: float = math.inf) -> int:
        """Attend in all heads at once: [T, H]."""
        heads, size = self.config.num_heads, self.config.head_size
        scores = self.apply(BATCH_MATMUL, [query, key], (heads, ANY, ANY), adjY=True)
        if largest > LARGEST_SCORE:
            mixed = self.apply(BATCH_MATMUL, [self.softmax(scores), value], (heads, ANY, size))
        else:
            shares, total = self.exponentials(scores)
            mixed = self.apply(BATCH_MATMUL, [shares, value], (heads, ANY, size))
            mixed = self.apply(DIV, [mixed, total], (heads, ANY, size))
        by_token = self._transpose(mixed, (ANY, heads, size))
        return self._reshape(by_token, (ANY, self.config.hidden_size))

    def softmax(self, x: int) -> int:
        """Turn each row of scores into shares."""
        return self.apply(SOFTMAX, [x], self.shapes[x], beta=1.0)

    def exponentials(self, x: int) -> tuple[int, int]:
        """Turn each row of scores [h, T, T] into shares of a total [h, T, 1].

        XNNPACK's softmax makes three calls a row, since it finds the row's largest score first.
        Small scores do not need that: one call takes the exponentials of all rows.
        """
        full = self.shapes[x]
        for name, operator, bound in (("most", MINIMUM, CLIP), ("least", MAXIMUM, -CLIP)):
            if name not in self.shared:
                self.shared[name] = self.constant(name, np.float32(bound))
            x = self.apply(operator, [x, self.shared[name]], full)
        shares = self.apply(EXP, [x], full)
        columns = [shares, self.integers("columns", [2])]
        return shares, self.apply(SUM, columns, (*full[:2], 1), keepDims=True)

    def activation(self, x: int, kind: str) -> int:
        """Apply an activation to each element."""
        if kind.startswith("gelu"):
            return self.apply(GELU, [x], self.shapes[x], approximate=kind == "gelu_tanh")
        return self.apply({"relu": RELU, "tanh": TANH}[kind], [x], self.shapes[x])

    def first(self, x: int) -> int:
        """Take the first token: [1, H]."""
        size = [1, self.shapes[x][1]]
        start, count = self.integers("start", [0, 0]), self.integers("first", size)
        return self.apply(SLICE, [x, start, count], (1, size[1]))

    def pool(self, x: int, how: str) -> int:
        """Pool the tokens: [1, H]."""
        shape, rows = (1, self.shapes[x][1]), self.integers("rows", [0])
        if how == "max":
            return self.apply(MAX, [x, rows], shape, keepDims=True)
        if how == "mean":
            return self.apply(MEAN, [x, rows], shape, keepDims=True)
        total = self.apply(SUM, [x, rows], shape, keepDims=True)
        floats = self._cast(self.ones, "int32", "float32")
        count = self.apply(SUM, [floats, rows], (1,), keepDims=True)
        return self.apply(MUL, [total, self.apply(RSQRT, [count], (1,))], shape)

    def integers(self, name: str, values: int | list[int]) -> int:
        """Return a small int32 constant, the same one for the same name."""
        if name not in self.shared:
            self.shared[name] = self.constant(name, np.array(values, np.int32))
        return self.shared[name]

    def apply(
        self,
        operator: Operator,
        inputs: list[int],
        shape: tuple[int, ...],
        dtype: str = "float32",
        **options: Any,
    ) -> int:
        """Add ``operator`` with one output of ``shape`` and return that."""
        output = self.new(shape, dtype)
        self.operator(operator, inputs, [output], **options)
        return output

    def new(self, shape: tuple[int, ...], dtype: str = "float32") -> int:
        """Add a tensor that is computed."""
        index = self.tensor(f"t{len(self.shapes)}", shape, dtype)
        self.shapes[index] = shape
        return index

    def _product(self, operator: Operator, name: str, x: int, matrix: int, bias: Array) -> int:
        inputs = [x, matrix, self.constant(f"{name}.bias", bias)]
        shape, rounded = (self.shapes[x][0], len(bias)), operator is LINEAR_INT8
        return self.apply(
            operator, inputs, shape, keepNumDims=True, asymmetricQuantizeInputs=rounded
        )

    def _gather(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of a float table: ids [T] to [T, columns]."""
        inputs = [self.constant(name, table), ids]
        return self.apply(GATHER, inputs, (ANY, table.shape[1]))

    def _rows(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of an int8 table, and only those become float: ids [T] to [T, columns].

        Plain arrays, not a quantised tensor: EMBEDDING_LOOKUP would copy a scale and a zero point
        for each row of the vocabulary to the heap, and is slower.
        """
        quantised, scales = quantise_rows(table)
        shape = (ANY, table.shape[1])
        picked = self.apply(GATHER_INT8, [self.constant(name, quantised), ids], shape, "int8")
        scale = self._gather(f"{name}.scale", scales[:, None], ids)
        return self.apply(MUL, [self._cast(picked, "int8", "float32"), scale], shape)

    def _rows_nf4(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of a table in NF4, and only those are unpacked: ids [T] to [T, columns]."""
        packed, scales = quantise_nf4(table)
        width, halves = table.shape[1], (ANY, packed.shape[1])
        blocks, each = scales.shape[1], (ANY, scales.shape[1], 1)
        picked = self.apply(GATHER, [self.constant(name, packed), ids], halves, "uint8")
        codes = self._cast(picked, "uint8", "int32")
        levels = [self.constant(f"{name}.levels", pairs()), codes]
        values = self.apply(GATHER, levels, (*halves, 2))
        stored = [self.constant(f"{name}.scale", scales[:, :, None]), ids]
        scale = self._cast(self.apply(GATHER, stored, each, "float16"), "float16", "float32")
        split = self._reshape(values, (ANY, blocks, BLOCK))
        scaled = self.apply(MUL, [split, scale], (ANY, blocks, BLOCK))
        return self._reshape(scaled, (ANY, width))

    def _cast(self, x: int, given: str, wanted: str) -> int:
        """Convert ``x`` from one type of number to another."""
        kinds = {"inDataType": _TYPES[given], "outDataType": _TYPES[wanted]}
        return self.apply(CAST, [x], self.shapes[x], wanted, **kinds)

    def _reshape(self, x: int, shape: tuple[int, ...]) -> int:
        """Lay out the float values of ``x`` in another shape."""
        wanted = self.integers("shape" + "x".join(map(str, shape)), list(shape))
        return self.apply(RESHAPE, [x, wanted], shape, newShape=list(shape))

    def _transpose(self, x: int, shape: tuple[int, ...]) -> int:
        """Swap the first two of three dimensions; ``shape`` is the result's."""
        return self.apply(TRANSPOSE, [x, self.integers("swapped", [1, 0, 2])], shape)
