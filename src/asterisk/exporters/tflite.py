"""TFLite: one file that LiteRT and other TFLite interpreters run at any length.

``int8`` stores every matrix and the token table as int8 with one scale a row; matrices are
multiplied in int8 (each token's activations are quantised by themselves while running), so a
vector does not depend on padding or neighbours. Position vectors, biases, norms and attention stay
float32. Weights without integer arithmetic, or in 16 bits, would be expanded to float32 in memory.
``int8-emb4`` differs in the token table alone: NF4, which lies in the file as plain bytes, so that
only the rows of a text are ever unpacked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.exporters import Exporter, Recipe, Samples, Written, rounding
from asterisk.exporters.flatbuffer import ANY, Graph
from asterisk.exporters.forward import PLAIN, Array, BlockCalibration, Calibration, ForwardPass
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig

ENTRY = "model.tflite"
INPUT, OUTPUT, SIGNATURE = "input_ids", "sentence_embedding", "serving_default"
LARGEST_SCORE = 40.0  # on samples: other texts may have larger ones
CLIP = np.float32(80)  # exp(80) times 10,000 tokens is still a float32, and exp(-80) not yet zero
Shape = tuple[int, ...]


class TfliteExporter(Exporter):
    """Writes ``model.tflite``."""

    format: ClassVar[str] = "tflite"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "matrices and token table in int8, a scale for each row", 8),
        Recipe("int8-emb4", "as int8, but the table in NF4, a scale for each 32", 6),
        Recipe("fp32", "everything in float32: the control"),
    )

    def write(
        self, checkpoint: Checkpoint, recipe: Recipe, folder: Path, samples: Samples
    ) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`."""
        int8, nf4_table = recipe.name != "fp32", recipe.name == "int8-emb4"
        calibration: list[BlockCalibration] = []
        if int8:
            calibrate = rounding.calibrate_with_scores
            calibration, scores = calibrate(checkpoint, samples, per_token=True)
        else:
            scores = rounding.largest_scores(checkpoint, samples)
        graph = EncoderGraph(checkpoint.config, int8=int8, nf4_table=nf4_table)
        data = sentence_model(graph, checkpoint.name, checkpoint.tensors, calibration, scores)
        (folder / ENTRY).write_bytes(data)
        tools = ("ai-edge-litert", "flatbuffers")
        return Written(ENTRY, {tool: version(tool) for tool in tools})


def sentence_model(
    graph: EncoderGraph,
    name: str,
    tensors: Mapping[str, Array],
    calibration: Sequence[BlockCalibration] = (),
    scores: Sequence[float] = (),
) -> memoryview:
    """Return the file that maps ids int32 [1, tokens] to `OUTPUT` float32 [1, size]."""
    vector = ForwardPass(graph, graph.config, tensors, calibration, scores).sentence_embedding()
    graph.rename(vector, OUTPUT)
    return graph.to_bytes(SIGNATURE, graph.ids, vector, f"asterisk {name}")


SPLIT = "SPLIT"


class EncoderGraph(Graph):
    """The encoder's operators (`asterisk.exporters.forward`): ids [1, T] in, one vector [1, d] out.

    ``int8`` makes products and the token table int8; ``nf4_table`` makes the table NF4. No shape
    holds the length twice except scores, and every size follows from the input's without running
    anything: an interpreter plans a new length in microseconds. From the two tables' rows on,
    XNNPACK takes the whole graph.
    """

    def __init__(self, config: ModelConfig, *, int8: bool, nf4_table: bool = False) -> None:
        super().__init__()
        self.config, self.int8, self.nf4_table = config, int8, nf4_table
        self.shapes: dict[int, Shape] = {}
        self.shared: dict[str, int] = {}  # constants that are used again, by name
        self.ids = self.tensor(INPUT, (1, ANY), "int32")
        flat = self.integers("flat", [ANY])
        self.flat = self.apply("RESHAPE", [self.ids, flat], (ANY,), "int32", newShape=[ANY])
        zeros = self.apply("SUB", [self.flat, self.flat], (ANY,), "int32")
        self.ones = self.apply("ADD", [zeros, self.integers("one", [1])], (ANY,), "int32")

    def words(self, table: Array) -> int:
        """Look up the text's tokens, and only those become float: [T, H]."""
        if not self.int8:
            return self._gather("word", table, (ANY, table.shape[1]))
        if not self.nf4_table:
            # Plain arrays, not a quantised tensor: EMBEDDING_LOOKUP would copy a scale and a zero
            # point for each row of the vocabulary to the heap, and is slower.
            narrow, scales = rounding.quantise_rows(table)
            shape = (ANY, table.shape[1])
            picked = self._gather("word", narrow, shape, "int8")
            scale = self._gather("word.scale", scales[:, None], (ANY, 1))
            return self.apply("MUL", [self._cast(picked, "int8", "float32"), scale], shape)
        packed, half_scales = rounding.quantise_nf4(table)
        blocks, bytes_ = half_scales.shape[1], (ANY, packed.shape[1])
        codes = self._cast(self._gather("word", packed, bytes_, "uint8"), "uint8", "int32")
        levels = [self.constant("word.levels", rounding.nf4_pairs()), codes]
        values = self.apply("GATHER", levels, (*bytes_, 2))
        half = self._gather("word.scale", half_scales[:, :, None], (ANY, blocks, 1), "float16")
        scale = self._cast(half, "float16", "float32")
        split = self._reshape(values, (ANY, blocks, rounding.NF4_BLOCK))
        scaled = self.apply("MUL", [split, scale], (ANY, blocks, rounding.NF4_BLOCK))
        return self._reshape(scaled, (ANY, table.shape[1]))

    def positions(self, table: Array) -> int:
        """Take as many rows as there are tokens: [T, H]."""
        # Counting the tokens up to each one, rather than slicing by a length that is itself
        # computed: a tensor of computed size would be outside XNNPACK, and all after it too.
        axis = self.integers("tokens", 0)
        numbers = self.apply("CUMSUM", [self.ones, axis], (ANY,), "int32", exclusive=True)
        return self.apply(
            "GATHER", [self.constant("position", table), numbers], (ANY, table.shape[1])
        )

    def add(self, a: int, b: int) -> int:
        """Add two tensors."""
        return self.apply("ADD", [a, b], self.shapes[a])

    def norm(self, x: int, weight: Array, bias: Array) -> int:
        """Apply LayerNorm to each row."""
        full = self.shapes[x]
        column = (full[0], 1)
        last = self.integers("last", [-1])
        epsilon = self._shared("epsilon", np.float32(self.config.layer_norm_eps))
        mean = self.apply("MEAN", [x, last], column, keepDims=True)
        centred = self.apply("SUB", [x, mean], full)
        squares = self.apply("MUL", [centred, centred], full)
        variance = self.apply("MEAN", [squares, last], column, keepDims=True)
        above_zero = self.apply("ADD", [variance, epsilon], column)
        unit = self.apply("MUL", [centred, self.apply("RSQRT", [above_zero], column)], full)
        scaled = self.apply("MUL", [unit, self.constant("norm.weight", weight)], full)
        return self.apply("ADD", [scaled, self.constant("norm.bias", bias)], full)

    def linear(
        self, name: str, x: int, weight: Array, bias: Array, calibration: Calibration = PLAIN
    ) -> int:
        """Multiply, in int8 with a scale for each row of ``x``, which needs no exact channels."""
        if not self.int8:
            return self.exact(name, x, weight, bias)
        factors = calibration.factors
        if factors is not None:
            smooth = self.constant(f"{name}.factors", 1 / factors)
            x, weight = self.apply("MUL", [x, smooth], self.shapes[x]), weight * factors
        matrix = self.constant(f"{name}.weight", *rounding.quantise_rows(weight))
        return self._product(name, x, matrix, bias)

    def exact(self, name: str, x: int, weight: Array, added: int | Array) -> int:
        """Multiply in float32, and add a bias or a tensor."""
        matrix = self.constant(f"{name}.weight", weight)
        if not isinstance(added, int):
            return self._product(name, x, matrix, added, int8=False)
        bias = np.zeros(len(weight), np.float32)
        return self.add(self._product(name, x, matrix, bias, int8=False), added)

    def _product(self, name: str, x: int, matrix: int, bias: Array, *, int8: bool = True) -> int:
        inputs = [x, matrix, self.constant(f"{name}.bias", bias)]
        options: dict[str, Any] = {"keepNumDims": True, "asymmetricQuantizeInputs": int8}
        options["version"] = 12 if int8 else 5  # a scale for each row, or any rank
        return self.apply("FULLY_CONNECTED", inputs, (self.shapes[x][0], len(bias)), **options)

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
        scores = self.apply("BATCH_MATMUL", [query, key], (heads, ANY, ANY), adjY=True)
        if largest > LARGEST_SCORE:
            mixed = self.apply("BATCH_MATMUL", [self.softmax(scores), value], (heads, ANY, size))
        else:
            # XNNPACK's softmax makes three calls a row, since it finds the row's largest score
            # first. Small scores do not need that: one call takes the exponentials of all rows.
            full = self.shapes[scores]
            scores = self.apply("MINIMUM", [scores, self._shared("most", CLIP)], full)
            scores = self.apply("MAXIMUM", [scores, self._shared("least", -CLIP)], full)
            shares = self.apply("EXP", [scores], full)
            columns = [shares, self.integers("columns", [2])]
            total = self.apply("SUM", columns, (*full[:2], 1), keepDims=True)
            mixed = self.apply("BATCH_MATMUL", [shares, value], (heads, ANY, size))
            mixed = self.apply("DIV", [mixed, total], (heads, ANY, size))
        by_token = self._transpose(mixed, (ANY, heads, size))
        return self._reshape(by_token, (ANY, self.config.hidden_size))

    def softmax(self, x: int) -> int:
        """Turn each row of scores into shares."""
        return self.apply("SOFTMAX", [x], self.shapes[x], beta=1.0)

    def activation(self, x: int, kind: str) -> int:
        """Apply an activation to each element."""
        if kind.startswith("gelu"):
            return self.apply("GELU", [x], self.shapes[x], approximate=kind == "gelu_tanh")
        return self.apply(kind.upper(), [x], self.shapes[x])

    def first(self, x: int) -> int:
        """Take the first token: [1, H]."""
        size = [1, self.shapes[x][1]]
        start, count = self.integers("start", [0, 0]), self.integers("first", size)
        return self.apply("SLICE", [x, start, count], (1, size[1]))

    def pool(self, x: int, how: str) -> int:
        """Pool the tokens: [1, H]."""
        shape, rows = (1, self.shapes[x][1]), self.integers("rows", [0])
        if how != "mean_sqrt_len_tokens":
            code = {"max": "REDUCE_MAX", "mean": "MEAN"}[how]
            return self.apply(code, [x, rows], shape, keepDims=True)
        total = self.apply("SUM", [x, rows], shape, keepDims=True)
        floats = self._cast(self.ones, "int32", "float32")
        count = self.apply("SUM", [floats, rows], (1,), keepDims=True)
        return self.apply("MUL", [total, self.apply("RSQRT", [count], (1,))], shape)

    def integers(self, name: str, values: int | list[int]) -> int:
        """Return a small int32 constant, the same one for the same name."""
        return self._shared(name, np.array(values, np.int32))

    def _shared(self, name: str, value: npt.ArrayLike) -> int:
        if name not in self.shared:
            self.shared[name] = self.constant(name, value)
        return self.shared[name]

    def apply(
        self, code: str, inputs: list[int], shape: Shape, dtype: str = "float32", **options: Any
    ) -> int:
        """Add the operator ``code`` with one output of ``shape`` and return that."""
        output = self.new(shape, dtype)
        self.operator(code, inputs, [output], **options)
        return output

    def new(self, shape: Shape, dtype: str = "float32") -> int:
        """Add a tensor that is computed."""
        index = self.tensor(f"t{len(self.shapes)}", shape, dtype)
        self.shapes[index] = shape
        return index

    def _gather(
        self, name: str, table: npt.NDArray[Any], shape: Shape, dtype: str = "float32"
    ) -> int:
        """Pick the text's rows of a table."""
        inputs, version = [self.constant(name, table), self.flat], 2 if dtype == "int8" else 1
        return self.apply("GATHER", inputs, shape, dtype, version=version)

    def _cast(self, x: int, given: str, wanted: str) -> int:
        """Convert ``x`` from one type of number to another."""
        types = [getattr(self._schema.TensorType, each.upper()) for each in (given, wanted)]
        kinds = dict(zip(("inDataType", "outDataType"), types, strict=True))
        return self.apply("CAST", [x], self.shapes[x], wanted, **kinds)

    def _reshape(self, x: int, shape: Shape) -> int:
        """Lay out the float values of ``x`` in another shape."""
        wanted = self.integers("shape" + "x".join(map(str, shape)), list(shape))
        return self.apply("RESHAPE", [x, wanted], shape, newShape=list(shape))

    def _transpose(self, x: int, shape: Shape) -> int:
        """Swap the first two of three dimensions; ``shape`` is the result's."""
        return self.apply("TRANSPOSE", [x, self.integers("swapped", [1, 0, 2])], shape)
