"""TFLite."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.exporters.flatbuffer import ANY, Graph
from asterisk.model.checkpoint import Checkpoint

Array = npt.NDArray[np.float32]

class TfliteExporter:
    format: ClassVar[str] = "tflite"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("int8", "weights and embedding table int8 by row, activations int8 by token", QUANTISED),
        Recipe("fp32", "everything in 32 bits", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        data = build(checkpoint, recipe.name == "int8")
        (folder / "model.tflite").write_bytes(data)
        return Written("model.tflite", {"ai-edge-litert": version("ai-edge-litert"), "flatbuffers": version("flatbuffers")})


class _Builder:
    def __init__(self, checkpoint: Checkpoint, int8: bool) -> None:
        self.c = checkpoint
        self.config = checkpoint.config
        self.int8 = int8
        self.g = Graph()
        self.n = 0
        self.eps = self.g.constant("eps", np.array(self.config.layer_norm_eps, "f4"))
        self.last = self.g.constant("last", np.array([-1], "i4"))

    def new(self, name: str, *shape: int, dtype: str = "float32") -> int:
        self.n += 1
        return self.g.tensor(f"{name}.{self.n}", shape, dtype)

    def weight(self, name: str, value: Array) -> int:
        if not self.int8:
            return self.g.constant(name, value)
        scale = np.abs(value).max(1) / np.float32(127)
        scale[scale == 0] = 1
        return self.g.constant(name, np.rint(value / scale[:, None]).astype("i1"), scale)

    def linear(self, name: str, x: int, w: Array, b: Array, rows: int = ANY) -> int:
        g = self.g
        return g.operator(
            "FULLY_CONNECTED", 12 if self.int8 else 5,
            [x, self.weight(name + ".weight", w), g.constant(name + ".bias", b)],
            self.new(name, rows, len(b)),
            kind="FullyConnectedOptions", keepNumDims=True, asymmetricQuantizeInputs=self.int8,
        )

    def unary(self, code, x, shape, **o):
        return self.g.operator(code, 1, [x], self.new(code.lower(), *shape), **o)

    def binary(self, code, x, y, shape, **o):
        return self.g.operator(code, 1, [x, y], self.new(code.lower(), *shape), **o)

    def norm(self, name: str, x: int) -> int:
        h = self.config.hidden_size
        full, col = (ANY, h), (ANY, 1)
        w = self.g.constant(name + ".weight", self.c.tensors[name + ".weight"])
        b = self.g.constant(name + ".bias", self.c.tensors[name + ".bias"])
        mean = self.binary("MEAN", x, self.last, col, kind="ReducerOptions", keepDims=True)
        cen = self.binary("SUB", x, mean, full, kind="SubOptions")
        sq = self.binary("MUL", cen, cen, full, kind="MulOptions")
        var = self.binary("MEAN", sq, self.last, col, kind="ReducerOptions", keepDims=True)
        var = self.binary("ADD", var, self.eps, col, kind="AddOptions")
        r = self.unary("RSQRT", var, col)
        y = self.binary("MUL", cen, r, full, kind="MulOptions")
        y = self.binary("MUL", y, w, full, kind="MulOptions")
        return self.binary("ADD", y, b, full, kind="AddOptions")

    def lin(self, name: str, x: int, rows: int = ANY) -> int:
        t = self.c.tensors
        return self.linear(name, x, t[name + ".weight"], t[name + ".bias"], rows)

    def attention(self, block: str, x: int) -> int:
        c, t, g = self.config, self.c.tensors, self.g
        d = c.head_size
        heads = []
        for i in range(c.num_heads):
            s = slice(i * d, (i + 1) * d)
            q, k, v = (
                self.linear(f"{p}.{i}", x, t[f"{p}.weight"][s] * f, t[f"{p}.bias"][s] * f)
                for p, f in ((f"{block}.query", np.float32(d ** -0.5)), (f"{block}.key", np.float32(1)), (f"{block}.value", np.float32(1)))
            )
            sc = self.binary("BATCH_MATMUL", q, k, (ANY, ANY), kind="BatchMatMulOptions", adjY=True)
            sc = self.unary("SOFTMAX", sc, (ANY, ANY), kind="SoftmaxOptions", beta=1.0)
            heads.append(self.binary("BATCH_MATMUL", sc, v, (ANY, d), kind="BatchMatMulOptions"))
        if len(heads) == 1:
            return heads[0]
        return g.operator("CONCATENATION", 1, heads, self.new("concat", ANY, c.hidden_size), kind="ConcatenationOptions", axis=1)

    def embed(self, ids: int) -> int:
        g, c, t = self.g, self.config, self.c.tensors
        h = c.hidden_size
        flat = g.operator("RESHAPE", 1, [ids, g.constant("flat", np.array([-1], "i4"))], self.new("flat", ANY, dtype="int32"), kind="ReshapeOptions", newShape=[-1])
        table = self.weight("word", t["embeddings.word_embeddings.weight"])
        words = g.operator("EMBEDDING_LOOKUP", 4 if self.int8 else 1, [flat, table], self.new("words", ANY, h))
        pos = t["embeddings.position_embeddings.weight"] + t["embeddings.token_type_embeddings.weight"]
        shape = g.operator("SHAPE", 1, [flat], self.new("shape", 1, dtype="int32"), kind="ShapeOptions", outType=2)
        begin = g.constant("begin", np.array([0], "i4"))
        zero = g.operator("MUL", 1, [flat, g.constant("zero", np.array([0], "i4"))], self.new("zero", ANY, dtype="int32"), kind="MulOptions")
        one = g.operator("ADD", 1, [zero, g.constant("one", np.array([1], "i4"))], self.new("one", ANY, dtype="int32"), kind="AddOptions")
        where = g.operator("CUMSUM", 1, [one, g.constant("axis", np.array(0, "i4"))], self.new("where", ANY, dtype="int32"), kind="CumsumOptions", exclusive=True)
        self.g._operators.remove([o for o in self.g._operators][-4])  # shape unused
        posv = g.operator("EMBEDDING_LOOKUP", 1, [where, g.constant("pos", pos)], self.new("posv", ANY, h))
        x = self.binary("ADD", words, posv, (ANY, h), kind="AddOptions")
        return self.norm("embeddings.LayerNorm", x) if c.embedding_norm else x

    def build(self) -> bytes:
        g, c = self.g, self.config
        h = c.hidden_size
        ids = g.tensor("input_ids", (1, ANY), "int32")
        x = self.embed(ids)
        add = lambda a, b: self.binary("ADD", a, b, (ANY, h), kind="AddOptions")
        gelu = lambda a: self.unary("GELU", a, (ANY, c.intermediate_size), kind="GeluOptions")
        for i in range(c.num_layers):
            p = f"encoder.layer.{i}"
            dense, n1, wide, narrow, n2 = p + ".attention.output.dense", p + ".attention.output.LayerNorm", p + ".intermediate.dense", p + ".output.dense", p + ".output.LayerNorm"
            at = p + ".attention.self"
            if c.norm_first:
                x = add(x, self.lin(dense, self.attention(at, self.norm(n1, x))))
                x = add(x, self.lin(narrow, gelu(self.lin(wide, self.norm(n2, x)))))
            else:
                x = self.norm(n1, add(x, self.lin(dense, self.attention(at, x))))
                x = self.norm(n2, add(x, self.lin(narrow, gelu(self.lin(wide, x)))))
        x = self.g.operator("MEAN", 1, [x, g.constant("first", np.array([0], "i4"))], self.new("mean", 1, h), kind="ReducerOptions", keepDims=True)
        if c.projection_size:
            x = self.lin("projection", x, 1)
        return g.to_bytes("serving_default", {"input_ids": ids}, {"sentence_embedding": x}, "asterisk")


def build(checkpoint: Checkpoint, int8: bool) -> bytes:
    return _Builder(checkpoint, int8).build()
