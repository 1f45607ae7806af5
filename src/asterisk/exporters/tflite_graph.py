"""The encoder as a TFLite graph of any length: token ids [1, T] in, one vector [1, d] out.

Everything between is two-dimensional, so that no shape holds the length except as a leading
dimension, and every size follows from the input's without running anything: an interpreter plans
a new length in microseconds. From the two tables' rows on, XNNPACK takes the whole graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asterisk.exporters.flatbuffer import ANY, Graph, Operator
from asterisk.exporters.nf4 import BLOCK, pairs, quantise_nf4
from asterisk.exporters.rounding import quantise_rows
from asterisk.model.checkpoint import Array, Checkpoint

SIGNATURE = "serving_default"
INPUT, OUTPUT = "input_ids", "sentence_embedding"

ADD = Operator("ADD", "AddOptions")
BATCH_MATMUL = Operator("BATCH_MATMUL", "BatchMatMulOptions")
CAST = Operator("CAST", "CastOptions")
CONCATENATION = Operator("CONCATENATION", "ConcatenationOptions")
CUMSUM = Operator("CUMSUM", "CumsumOptions")
GATHER = Operator("GATHER", "GatherOptions")
GATHER_INT8 = Operator("GATHER", "GatherOptions", 2)
GELU = Operator("GELU", "GeluOptions")
LINEAR = Operator("FULLY_CONNECTED", "FullyConnectedOptions", 5)  # any rank
LINEAR_INT8 = Operator("FULLY_CONNECTED", "FullyConnectedOptions", 12)  # a scale for each row
MEAN = Operator("MEAN", "ReducerOptions")
MUL = Operator("MUL", "MulOptions")
RESHAPE = Operator("RESHAPE", "ReshapeOptions")
RSQRT = Operator("RSQRT")
SOFTMAX = Operator("SOFTMAX", "SoftmaxOptions")
SPLIT = Operator("SPLIT", "SplitOptions")
SUB = Operator("SUB", "SubOptions")

ROWS, COLUMNS = 0, 1
_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}  # numbers of the schema


def encoder_graph(checkpoint: Checkpoint, *, int8: bool, nf4_table: bool = False) -> bytes:
    """Return the file's bytes; see `asterisk.exporters.tflite` for what is stored how."""
    return EncoderGraph(checkpoint, int8, nf4_table).build()


class EncoderGraph:
    """One encoder under construction; methods take and return tensors by index."""

    def __init__(self, checkpoint: Checkpoint, int8: bool, nf4_table: bool) -> None:
        self.config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.name = checkpoint.name
        self.int8 = int8
        self.look_up = self.rows_nf4 if nf4_table else self.rows if int8 else self.gather
        self.graph = Graph()
        self.computed = 0
        self.shared: dict[str, int] = {}

    def build(self) -> bytes:
        """Return the file of the whole encoder, as `asterisk.model.encoder.Encoder` defines it."""
        config = self.config
        ids = self.graph.tensor(INPUT, (1, ANY), "int32")
        x = self.embeddings(ids)
        for index in range(config.num_layers):
            x = self.block(f"encoder.layer.{index}", x)
        result = self.graph.tensor(OUTPUT, (1, config.embedding_size))
        pooled = self.new((1, config.hidden_size)) if config.projection_size else result
        self.graph.add(MEAN, [x, self.integers("rows", [ROWS])], [pooled], keepDims=True)
        if config.projection_size:
            self.linear("projection", pooled, *self.parameters("projection"), result)
        return self.graph.to_bytes(SIGNATURE, ids, result, f"asterisk {self.name}")

    def embeddings(self, ids: int) -> int:
        """Map ids [1, T] to vectors [T, H]."""
        graph, hidden = self.graph, self.config.hidden_size
        words = self.tensors["embeddings.word_embeddings.weight"]
        places = self.tensors["embeddings.position_embeddings.weight"]
        types = self.tensors["embeddings.token_type_embeddings.weight"]

        flat = self.new((ANY,), "int32")
        graph.add(RESHAPE, [ids, self.integers("flat", [ANY])], [flat], newShape=[ANY])
        # Counting the tokens up to each one, rather than slicing by a length that is itself
        # computed: a tensor of computed size would be outside XNNPACK, and all after it too.
        zeros = self.apply(SUB, [flat, flat], (ANY,), "int32")
        ones = self.apply(ADD, [zeros, self.integers("one", [1])], (ANY,), "int32")
        axis = self.integers("tokens", 0)
        positions = self.apply(CUMSUM, [ones, axis], (ANY,), "int32", exclusive=True)

        token = self.look_up("word", words, flat)
        place = self.gather("position", places + types, positions)
        x = self.apply(ADD, [token, place], (ANY, hidden))
        return self.norm("embeddings.LayerNorm", x) if self.config.embedding_norm else x

    def gather(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of a float table: ids [T] to [T, columns]."""
        inputs = [self.graph.constant(name, table), ids]
        return self.apply(GATHER, inputs, (ANY, table.shape[1]))

    def rows(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of an int8 table, and only those become float: ids [T] to [T, columns].

        Plain arrays, not a quantised tensor: EMBEDDING_LOOKUP would copy a scale and a zero point
        for each row of the vocabulary to the heap, and is slower.
        """
        quantised, scales = quantise_rows(table)
        width = table.shape[1]
        inputs = [self.graph.constant(name, quantised), ids]
        picked = self.apply(GATHER_INT8, inputs, (ANY, width), "int8")
        values = self.cast(picked, (ANY, width), "int8", "float32")
        scale = self.gather(f"{name}.scale", scales[:, None], ids)
        return self.apply(MUL, [values, scale], (ANY, width))

    def rows_nf4(self, name: str, table: Array, ids: int) -> int:
        """Pick rows of a table in NF4, and only those are unpacked: ids [T] to [T, columns]."""
        packed, scales = quantise_nf4(table)
        width, halves = table.shape[1], (ANY, packed.shape[1])
        blocks, each = scales.shape[1], (ANY, scales.shape[1], 1)
        picked = self.apply(GATHER, [self.graph.constant(name, packed), ids], halves, "uint8")
        codes = self.cast(picked, halves, "uint8", "int32")
        levels = [self.graph.constant(f"{name}.levels", pairs()), codes]
        values = self.apply(GATHER, levels, (*halves, 2))
        stored = [self.graph.constant(f"{name}.scale", scales[:, :, None]), ids]
        scale = self.cast(self.apply(GATHER, stored, each, "float16"), each, "float16", "float32")
        split = self.reshape(values, (ANY, blocks, BLOCK))
        scaled = self.apply(MUL, [split, scale], (ANY, blocks, BLOCK))
        return self.reshape(scaled, (ANY, width))

    def cast(self, x: int, shape: tuple[int, ...], given: str, wanted: str) -> int:
        """Convert ``x`` from one type of number to another."""
        kinds = {"inDataType": _TYPES[given], "outDataType": _TYPES[wanted]}
        return self.apply(CAST, [x], shape, wanted, **kinds)

    def reshape(self, x: int, shape: tuple[int, ...]) -> int:
        """Lay out the float values of ``x`` in another shape."""
        wanted = self.integers("shape" + "x".join(map(str, shape)), list(shape))
        return self.apply(RESHAPE, [x, wanted], shape, newShape=list(shape))

    def block(self, name: str, x: int) -> int:
        """Map hidden states [T, H] to hidden states [T, H]."""
        shape = (ANY, self.config.hidden_size)
        attend, mixed = f"{name}.attention.self", f"{name}.attention.output.dense"
        first, second = f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"
        if self.config.norm_first:
            y = self.dense(mixed, self.attention(attend, self.norm(first, x)))
            x = self.apply(ADD, [x, y], shape)
            return self.apply(ADD, [x, self.feed_forward(name, self.norm(second, x))], shape)
        y = self.dense(mixed, self.attention(attend, x))
        x = self.norm(first, self.apply(ADD, [x, y], shape))
        return self.norm(second, self.apply(ADD, [x, self.feed_forward(name, x)], shape))

    def feed_forward(self, name: str, x: int) -> int:
        """Widen, GELU (the exact one), narrow: [T, H] to [T, H]."""
        wide = self.dense(f"{name}.intermediate.dense", x)
        inner = self.apply(GELU, [wide], (ANY, self.config.intermediate_size))
        return self.dense(f"{name}.output.dense", inner)

    def attention(self, name: str, x: int) -> int:
        """Attend head by head: [T, H] to [T, H].

        A head's query, key and value are one product, split afterwards; no head is ever reshaped
        or transposed out of the others'. The scores' scale is part of the query's weights.
        """
        size, heads = self.config.head_size, []
        axis = self.integers("columns", COLUMNS)
        for head in range(self.config.num_heads):
            weight, bias = self.head(name, head)
            joined = self.linear(f"{name}.{head}", x, weight, bias)
            query, key, value = (self.new((ANY, size)) for _ in range(3))
            self.graph.add(SPLIT, [axis, joined], [query, key, value], numSplits=3)
            heads.append(self.attend(query, key, value))
        return self.apply(CONCATENATION, heads, (ANY, self.config.hidden_size), axis=COLUMNS)

    def attend(self, query: int, key: int, value: int) -> int:
        """Average ``value`` by what ``query`` finds in ``key``: all of them [T, H / heads]."""
        scores = self.apply(BATCH_MATMUL, [query, key], (ANY, ANY), adjY=True)
        shares = self.apply(SOFTMAX, [scores], (ANY, ANY), beta=1.0)
        return self.apply(BATCH_MATMUL, [shares, value], (ANY, self.config.head_size))

    def head(self, name: str, index: int) -> tuple[Array, Array]:
        """Return one head's weights [3·size, H] and biases [3·size]: query, key, value."""
        size = self.config.head_size
        part = slice(index * size, (index + 1) * size)
        weights, biases = [], []
        for kind, scale in (("query", size**-0.5), ("key", 1.0), ("value", 1.0)):
            weight, bias = self.parameters(f"{name}.{kind}")
            weights.append(weight[part] * np.float32(scale))
            biases.append(bias[part] * np.float32(scale))
        return np.concatenate(weights), np.concatenate(biases)

    def norm(self, name: str, x: int) -> int:
        """Apply a LayerNorm over columns: [T, H] to [T, H]."""
        full, column = (ANY, self.config.hidden_size), (ANY, 1)
        weight, bias = self.parameters(name)
        last = self.integers("last", [-1])
        epsilon = self.graph.constant(f"{name}.eps", np.float32(self.config.layer_norm_eps))
        mean = self.apply(MEAN, [x, last], column, keepDims=True)
        centred = self.apply(SUB, [x, mean], full)
        squares = self.apply(MUL, [centred, centred], full)
        variance = self.apply(MEAN, [squares, last], column, keepDims=True)
        inverse = self.apply(RSQRT, [self.apply(ADD, [variance, epsilon], column)], column)
        unit = self.apply(MUL, [centred, inverse], full)
        scaled = self.apply(MUL, [unit, self.graph.constant(f"{name}.weight", weight)], full)
        return self.apply(ADD, [scaled, self.graph.constant(f"{name}.bias", bias)], full)

    def dense(self, name: str, x: int) -> int:
        """Apply the checkpoint's linear map ``name``: [T, in] to [T, out]."""
        return self.linear(name, x, *self.parameters(name))

    def linear(
        self, name: str, x: int, weight: Array, bias: Array, output: int | None = None
    ) -> int:
        """Apply ``weight`` [out, in] and ``bias`` [out] to each row of ``x``.

        Under int8, XNNPACK quantises each row of ``x`` by itself as it runs.
        """
        if output is None:
            output = self.new((ANY, len(bias)))
        parameters = quantise_rows(weight) if self.int8 else (weight, None)
        matrix = self.graph.constant(f"{name}.weight", *parameters)
        inputs = [x, matrix, self.graph.constant(f"{name}.bias", bias)]
        options = {"keepNumDims": True, "asymmetricQuantizeInputs": self.int8}
        self.graph.add(LINEAR_INT8 if self.int8 else LINEAR, inputs, [output], **options)
        return output

    def parameters(self, name: str) -> tuple[Array, Array]:
        """Return the checkpoint's ``name.weight`` and ``name.bias``."""
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]

    def integers(self, name: str, values: int | list[int]) -> int:
        """Return a small int32 constant, the same one for the same name."""
        if name not in self.shared:
            self.shared[name] = self.graph.constant(name, np.array(values, np.int32))
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
        self.graph.add(operator, inputs, [output], **options)
        return output

    def new(self, shape: tuple[int, ...], dtype: str = "float32") -> int:
        """Add a numbered tensor."""
        self.computed += 1
        return self.graph.tensor(f"t{self.computed}", shape, dtype)
