"""The encoder's forward pass for one text, described once for every graph format.

A format implements the operators: how each is written down, and how weights are rounded. Which
operators follow one another, and over which weights, stands here alone. The truth is
`asterisk.model.encoder.Encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from asterisk.model.config import ModelConfig

Array = npt.NDArray[np.float32]
Parameters = tuple[Array, Array]  # a weight and its bias
Value = TypeVar("Value")
"""What a format knows a tensor of its graph by."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a product loses less when it is rounded; see `asterisk.exporters.rounding`.

    The input's channels are divided by the smoothing ``factors`` [in], and the weights multiplied
    by them, before both are rounded. Channels ``exact``, ascending, are multiplied in float32.
    Those of the feed-forward's second product are computed in float32 as well: they are inner
    channels, which nothing else reads.
    """

    factors: Array | None = None
    exact: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))


PLAIN = Calibration()
BlockCalibration = Mapping[str, Calibration]
"""Of a block's products: ``attention`` (query, key and value in one), attention's ``output``, and
the feed-forward's first and second, ``inner`` and ``outer``. What is not named is uncalibrated."""


class _Operators(Protocol[Value]):
    """What a format provides: T tokens, H hidden elements, h heads of d; a batch may lead."""

    # The rows of a table [vocabulary, H] at the text's tokens, and the first T of [positions, H].
    def words(self, table: Array) -> Value: ...
    def positions(self, table: Array) -> Value: ...

    def add(self, a: Value, b: Value) -> Value: ...
    def norm(self, x: Value, weight: Array, bias: Array) -> Value: ...  # LayerNorm of each row

    # A product with a weight [out, in]: [T, out]. Its calibration changes nothing but rounding.
    def linear(
        self, name: str, x: Value, weight: Array, bias: Array, calibration: Calibration = PLAIN
    ) -> Value: ...
    # The same in float32 whatever the recipe; ``added`` is a bias [out] or a tensor [T, out].
    def exact(self, name: str, x: Value, weight: Array, added: Value | Array) -> Value: ...

    def heads(self, x: Value) -> tuple[Value, Value, Value]: ...  # [T, 3 H] to Q, K, V [h, T, d]
    # softmax(QKᵀ) V, heads side by side: [T, H]. Q is scaled already; ``largest`` is the largest
    # magnitude among the scores QKᵀ of sample texts, if it is known.
    def attend(
        self, query: Value, key: Value, value: Value, largest: float = math.inf
    ) -> Value: ...

    def activation(self, x: Value, kind: str) -> Value: ...  # gelu, gelu_tanh, relu or tanh
    def first(self, x: Value) -> Value: ...  # the first row: [1, H]
    def pool(self, x: Value, how: str) -> Value: ...  # mean, max or mean_sqrt_len_tokens: [1, H]


@dataclass(frozen=True, slots=True)
class ForwardPass(Generic[Value]):
    """Lays out an encoder with the operators of a format."""

    ops: _Operators[Value]
    config: ModelConfig
    tensors: Mapping[str, Array]
    calibration: Sequence[BlockCalibration] = ()  # of each block, or none
    scores: Sequence[float] = ()  # the largest of each block's attention on sample texts, or none

    def sentence_embedding(self) -> Value:
        """Lay out a text's vector, [1, embedding_size], not normalised."""
        cls = self.config.pooling == "cls"
        x = self.token_states(first_only=cls)
        return self.dense(x if cls else self.ops.pool(x, self.config.pooling))

    def dense(self, x: Value) -> Value:
        """Lay out the maps after pooling, [1, H] to [1, embedding_size]."""
        for index, layer in enumerate(self.config.dense):
            name = f"dense.{index}"
            bias = self.tensors.get(f"{name}.bias", np.zeros(layer.out_features, np.float32))
            x = self.ops.linear(name, x, self.tensors[f"{name}.weight"], bias)
            if layer.activation != "identity":
                x = self.ops.activation(x, layer.activation)
        return x

    def token_states(self, *, first_only: bool = False) -> Value:
        """Lay out the last hidden states, [T, H], or those of the first token alone, [1, H]."""
        ops, config = self.ops, self.config
        # There is one token type only: it is part of the positions.
        positions = self.tensors["embeddings.position_embeddings.weight"]
        positions = positions + self.tensors["embeddings.token_type_embeddings.weight"][0]
        words = ops.words(self.tensors["embeddings.word_embeddings.weight"])
        x = ops.add(words, ops.positions(positions))
        if config.embedding_norm:
            x = ops.norm(x, *self._parameters("embeddings.LayerNorm"))
        for index in range(config.num_layers):
            x = self._attention(index, x, first_only and index == config.num_layers - 1)
            x = self._feed_forward(index, x)
        return ops.first(x) if first_only and not config.num_layers else x

    def _attention(self, index: int, x: Value, first_only: bool) -> Value:
        ops, name, hidden = self.ops, f"encoder.layer.{index}.attention", self.config.hidden_size
        norm = self._parameters(f"{name}.output.LayerNorm")
        output = self._calibration(index, "output")
        # Query, key and value are one product, weights [3 H, H].
        parts = [self._parameters(f"{name}.self.{part}") for part in ("query", "key", "value")]
        weight, bias = (np.concatenate(each) for each in zip(*parts, strict=True))
        for array in (weight, bias):  # the softmax's 1/√d is part of the query
            array[:hidden] *= np.float32(self.config.head_size**-0.5)
        if output.factors is not None:  # a weighted mean over tokens keeps a channel's factor
            weight[2 * hidden :] /= output.factors[:, None]
            bias[2 * hidden :] /= output.factors
        calibration = self._calibration(index, "attention")
        joined = self._after_norm(f"{name}.self", x, norm, (weight, bias), calibration)
        largest = self.scores[index] if self.scores else math.inf
        mixed = ops.attend(*ops.heads(joined), largest)
        if first_only:  # what follows treats each token by itself
            x, mixed = ops.first(x), ops.first(mixed)
        weight, bias = self._parameters(f"{name}.output.dense")
        y = ops.linear(f"{name}.output.dense", mixed, _times(weight, output.factors), bias)
        return self._residual(x, y, norm)

    def _feed_forward(self, index: int, x: Value) -> Value:
        ops, kind, block = self.ops, self.config.activation, f"encoder.layer.{index}"
        widen, narrow = f"{block}.intermediate.dense", f"{block}.output.dense"
        norm = self._parameters(f"{block}.output.LayerNorm")
        wide, wide_bias = self._parameters(widen)
        weight, bias = self._parameters(narrow)
        outer = self._calibration(index, "outer")
        if outer.factors is not None:  # with ReLU only: relu(x / s) is relu(x) / s
            wide, wide_bias = wide / outer.factors[:, None], wide_bias / outer.factors
            weight = weight * outer.factors
        exact = outer.exact
        # A slice copies nothing.
        others = np.delete(np.arange(weight.shape[1]), exact) if len(exact) else slice(None)
        inner, linear = self._calibration(index, "inner"), (wide[others], wide_bias[others])
        y = ops.activation(self._after_norm(widen, x, norm, linear, inner), kind)
        y = ops.linear(narrow, y, weight[:, others], bias)
        if len(exact):  # a small feed-forward beside the large one
            given = ops.norm(x, *norm) if self.config.norm_first else x
            small = ops.exact(f"{widen}.exact", given, wide[exact], wide_bias[exact])
            y = ops.exact(f"{narrow}.exact", ops.activation(small, kind), weight[:, exact], y)
        return self._residual(x, y, norm)

    def _after_norm(
        self, name: str, x: Value, norm: Parameters, linear: Parameters, calibration: Calibration
    ) -> Value:
        """Lay out a product; in a pre-norm model a norm precedes it, which takes its factors."""
        weight, bias = linear
        if self.config.norm_first:
            factors = calibration.factors
            divided = norm if factors is None else (norm[0] / factors, norm[1] / factors)
            x, weight = self.ops.norm(x, *divided), _times(weight, factors)
            calibration = replace(calibration, factors=None)
        return self.ops.linear(name, x, weight, bias, calibration)

    def _residual(self, x: Value, y: Value, norm: Parameters) -> Value:
        total = self.ops.add(x, y)
        return total if self.config.norm_first else self.ops.norm(total, *norm)

    def _parameters(self, name: str) -> Parameters:
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]

    def _calibration(self, index: int, part: str) -> Calibration:
        block = self.calibration[index] if self.calibration else {}
        return block.get(part, PLAIN)


def _times(values: Array, factors: Array | None) -> Array:
    return values if factors is None else values * factors
