"""ONNX as other people's loaders call it: a padded batch with its mask, one file, two outputs.

transformers.js, fastembed and sentence-transformers feed ``input_ids``, ``attention_mask`` and,
where the model has them, ``token_type_ids``, int64 [batch, sequence]. The first output is
``last_hidden_state``, float32 [batch, sequence, hidden], which they pool themselves; the second is
``sentence_embedding``, float32 [batch, d], as the model's folder asks for it. A text is one
segment: ``token_type_ids`` are part of the signature and always mean the first type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asterisk.common import plugins
from asterisk.common.errors import EngineError, FidelityError, UsageError, one_line
from asterisk.evaluation.fidelity import stability
from asterisk.exporters import Samples, thresholds
from asterisk.exporters.export import Progress, Reference, gate
from asterisk.exporters.forward import Array, ForwardPass
from asterisk.exporters.onnx import FLOAT, INPUT, UINT8, EncoderGraph, Shapes
from asterisk.exporters.rounding import LARGEST_INT8, calibrate, quantise_rows
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig
from asterisk.runtimes.engine import Engine, Vector
from asterisk.runtimes.onnx import session_options
from asterisk.runtimes.runtime import Runtime, Vectors

FP32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
MASK, TYPES = "attention_mask", "token_type_ids"
STATES, SENTENCE = "last_hidden_state", "sentence_embedding"
LARGEST_FILE = (1 << 31) - (1 << 20)  # bytes: protocol buffers hold 2 GB
BATCH = 16  # texts of mixed lengths that the gate pads to one length
EVERY = 4  # of the gate's texts, one of so many is embedded in a padded batch too
# Sums over a padded row are added in another order; int8 then rounds some values the other way.
LEAST_IN_BATCH = {FP32: 0.99999, INT8: 0.999}
ZERO_POINT = 128  # unsigned codes: signed ones are not multiplied everywhere
SMALLEST = 1e-12  # what a vector is divided by at least
LOWEST, TINY = float(np.finfo(np.float32).min), float(np.finfo(np.float32).tiny)


def write_onnx(
    checkpoint: Checkpoint,
    path: Path,
    name: str,
    reference: Reference,
    on_progress: Progress,
    *,
    token_types: bool,
) -> Mapping[str, float]:
    """Write `FP32` or `INT8` to ``path`` and return the gate's figures, in padded batches too."""
    on_progress(f"{name}: writing")
    quantised = name == INT8
    samples = reference.samples if quantised else ()
    model = batch_model(checkpoint, quantised=quantised, samples=samples, token_types=token_types)
    path.write_bytes(model)
    engine = BatchEngine(path, checkpoint.tokenizer.special.get("pad", 0))
    limits = thresholds("int8" if quantised else "fp32", checkpoint.config.num_layers)
    tokenizer = reference.runtime.tokenizer
    with Runtime([engine], tokenizer, checkpoint.config, checkpoint.fingerprint) as runtime:
        found = gate(runtime, reference, limits, lambda line: on_progress(f"{name}: {line}"))
        on_progress(f"{name}: embedding in padded batches")
        some = reference.texts[::EVERY]
        ids = [runtime.tokenize(text) for text in some]
        batches = [engine.batch(ids[at : at + BATCH]) for at in range(0, len(ids), BATCH)]
        alone = runtime.encode(some, prompt="", normalize=False)
        least = stability(alone, np.concatenate(batches))
    if not least >= LEAST_IN_BATCH[name]:
        raise FidelityError(
            f"a text's vector in a padded batch has a cosine of {least:.5f} with its own alone, "
            f"below {LEAST_IN_BATCH[name]}"
        )
    return {**found, "cosine_min_in_batch": least}


class BatchEngine(Engine):
    """ONNX Runtime on a file of the hub layout, which takes padded batches."""

    format = "onnx"

    def __init__(self, path: Path, padding: int) -> None:
        ort = plugins.require("onnxruntime", "onnx")
        self._padding = padding
        cpu = ["CPUExecutionProvider"]
        try:
            self._session: Any = ort.InferenceSession(str(path), session_options(ort), cpu)
        except Exception as failure:
            raise EngineError(f"ONNX Runtime refuses {path.name}: {one_line(failure)}") from None
        self._inputs = {value.name for value in self._session.get_inputs()}

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the vector of one text, float32 [embedding_size]."""
        vector: Vector = self.batch([ids])[0]
        return vector

    def batch(self, texts: Samples) -> Vectors:
        """Return the vectors of n texts, padded to one length, float32 [n, embedding_size]."""
        shape = len(texts), max(map(len, texts))
        ids, mask = np.full(shape, self._padding, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        given = {INPUT: ids, MASK: mask, TYPES: np.zeros_like(ids)}
        given = {name: value for name, value in given.items() if name in self._inputs}
        try:
            vectors: Vectors = self._session.run([SENTENCE], given)[0]
        except Exception as failure:
            raise EngineError(f"ONNX Runtime: {one_line(failure)}") from None
        return vectors


def batch_model(
    checkpoint: Checkpoint, *, quantised: bool, samples: Samples = (), token_types: bool = True
) -> bytes:
    """Return an ONNX file, weights included; UsageError for a model too large for it.

    Int8 if ``quantised``, calibrated on ``samples``; ``token_types`` adds `TYPES` to the inputs.
    """
    config = checkpoint.config
    size = sum(tensor.size for tensor in checkpoint.tensors.values()) * (1 if quantised else 4)
    if size > LARGEST_FILE:
        raise UsageError(f"a model of {size / 1e9:.1f} GB does not fit into one ONNX file of 2 GB")
    graph = BatchGraph(config, quantised=quantised)
    calibration = calibrate(checkpoint, samples, per_token=True) if quantised else []
    encoder = ForwardPass(graph, config, checkpoint.tensors, calibration)
    graph.name_output(encoder.token_states(), STATES)
    pooled = graph.first(STATES) if config.pooling == "cls" else graph.pool(STATES, config.pooling)
    vector = encoder.dense(pooled)
    if config.normalize:
        length = graph.node("ReduceL2", vector, graph.integers(-1), keepdims=1)
        vector = graph.node("Div", vector, graph.node("Max", length, graph.number(SMALLEST)))
    graph.name_output(vector, SENTENCE)
    inputs = (INPUT, MASK, TYPES) if token_types else (INPUT, MASK)
    outputs: Shapes = {
        STATES: ["batch", "sequence", config.hidden_size],
        SENTENCE: ["batch", config.embedding_size],
    }
    return graph.finish(checkpoint.name, dict.fromkeys(inputs, ("batch", "sequence")), outputs)


class BatchGraph(EncoderGraph):
    """The encoder's operators over a padded batch: shapes have a leading dimension B.

    Dynamic quantisation with one scale a tensor would give a text another vector beside other
    texts. Here every token has a scale of its own, in standard operators, as LiteRT rounds.
    """

    tokens: ClassVar[tuple[int, ...]] = (0, 0)
    swapped: ClassVar[Sequence[int]] = (0, 2, 1, 3)
    transposed: ClassVar[Sequence[int]] = (0, 1, 3, 2)
    head_axis: ClassVar[int] = 1

    def __init__(self, config: ModelConfig, *, quantised: bool) -> None:
        super().__init__(config, None, "", quantised=quantised)
        self.ids = INPUT
        mask = self.node("Cast", MASK, to=FLOAT)
        self.mask = self.node("Unsqueeze", mask, self.integers(1))  # [B, 1, T]
        lowest = self.number(LOWEST)
        hidden = self.node("Mul", self.node("Sub", self.number(1), mask), lowest)
        self.hidden = self.node("Unsqueeze", hidden, self.integers(1, 2))  # [B, 1, 1, T]

    def number(self, value: float) -> str:
        """Add a constant float32 scalar."""
        return self.tensor(np.array(value, np.float32))

    def softmax(self, x: str) -> str:
        """Turn each row of scores into shares of what is no padding."""
        return super().softmax(self.node("Add", x, self.hidden))

    def exact(self, name: str, x: str, weight: Array, added: str | Array) -> str:  # noqa: ARG002
        """Multiply in float32, and add."""
        added = added if isinstance(added, str) else self.tensor(added)
        return self.node("Add", self.node("MatMul", x, self.tensor(weight.T)), added)

    def first(self, x: str) -> str:
        """Take each text's first token: [B, H]."""
        return self.node("Gather", x, self.tensor(np.array(0)), axis=1)

    def pool(self, x: str, how: str) -> str:
        """Pool each text's tokens, padding left out: [B, H]."""
        if how == "max":
            column = self.node("Transpose", self.mask, perm=[0, 2, 1])
            is_text = self.node("Greater", column, self.number(0))
            x = self.node("Where", is_text, x, self.number(LOWEST))
            return self.node("ReduceMax", x, self.integers(1), keepdims=0)
        count = self.node("ReduceSum", self.mask, self.integers(2), keepdims=1)
        count = self.node("Max", count, self.number(1))
        if how == "mean_sqrt_len_tokens":
            count = self.node("Sqrt", count)
        total = self.node("MatMul", self.mask, x)
        return self.node("Squeeze", self.node("Div", total, count), self.integers(1))

    def product_int8(self, x: str, weight: Array) -> str:
        """Multiply in int8, with a scale for each token of ``x``."""
        narrow, scale = quantise_rows(weight)
        largest = self.node("ReduceMax", self.node("Abs", x), self.integers(-1), keepdims=1)
        step = self.node("Div", largest, self.number(LARGEST_INT8))
        step = self.node("Max", step, self.number(TINY))
        rounded = self.node("Round", self.node("Div", x, step))
        shifted = self.node("Add", rounded, self.number(ZERO_POINT))
        codes = self.node("Cast", shifted, to=UINT8)
        zero = self.tensor(np.array(ZERO_POINT, np.uint8))
        products = self.node("MatMulInteger", codes, self.tensor(narrow.T), zero)
        # First the tokens' steps: with a scale for each column ONNX Runtime would take the product
        # for one that has a single scale, and give other vectors in silence.
        by_token = self.node("Mul", self.node("Cast", products, to=FLOAT), step)
        return self.node("Mul", by_token, self.tensor(scale))
