"""The encoder's forward pass for one text, described once for every graph format.

A format implements `Operators`: how each operator is written down, and how weights are rounded.
Which operators follow one another, and over which weights, stands here alone. The truth is
`asterisk.model.encoder.Encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from asterisk.model.config import ModelConfig

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Value = TypeVar("Value")
"""What a format knows a tensor of its graph by."""


class Operators(Protocol[Value]):
    """What a graph format provides. T tokens, H hidden elements, h heads of d elements each.

    A format may give every shape a leading dimension for the batch.
    """

    def words(self, table: Array) -> Value:
        """Return the rows of ``table`` [vocabulary, H] at the text's tokens: [T, H]."""
        ...

    def positions(self, table: Array) -> Value:
        """Return the first T rows of ``table`` [positions, H]: [T, H]."""
        ...

    def add(self, a: Value, b: Value) -> Value:
        """Add two tensors of one shape."""
        ...

    def scale(self, x: Value, factors: Array) -> Value:
        """Multiply each row of ``x`` [T, H] by ``factors`` [H]."""
        ...

    def norm(self, x: Value, weight: Array, bias: Array) -> Value:
        """Apply LayerNorm to each row of ``x`` [T, H]."""
        ...

    def linear(self, name: str, x: Value, weight: Array, bias: Array, exact: int = 0) -> Value:
        """Apply ``weight`` [out, in] and ``bias`` [out] to each row of ``x``: [T, out].

        Where products are rounded, the last ``exact`` columns of ``weight`` are not.
        """
        ...

    def heads(self, x: Value) -> tuple[Value, Value, Value]:
        """Split ``x`` [T, 3 H] into query, key and value, [h, T, d] each."""
        ...

    def attend(self, query: Value, key: Value, value: Value) -> Value:
        """Return softmax(QKᵀ) V, heads side by side: [T, H]. Q is scaled already."""
        ...

    def activation(self, x: Value, kind: str) -> Value:
        """Apply one of `asterisk.model.config.ACTIVATIONS`, or ``tanh``."""
        ...

    def first(self, x: Value) -> Value:
        """Return the first row of ``x`` [T, H]: [1, H]."""
        ...

    def pool(self, x: Value, how: str) -> Value:
        """Pool the rows of ``x`` [T, H] by ``mean``, ``max`` or ``mean_sqrt_len_tokens``."""
        ...


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What calibration changes in one block so that its products can be rounded with less loss.

    Each array holds, for every channel of a product's input, the factor that the input is divided
    by and the weights are multiplied by; None leaves them alone. ``order`` is a new order of the
    feed-forward's inner channels, whose last ``exact`` are then multiplied in float32. In exact
    arithmetic the block stays the same function.
    """

    attention: Array | None = None  # [H], query, key and value
    output: Array | None = None  # [H], attention's output
    inner: Array | None = None  # [H], the feed-forward's first product
    outer: Array | None = None  # [intermediate], its second; with ReLU only
    order: npt.NDArray[np.intp] | None = None
    exact: int = 0


def sentence_embedding(
    ops: Operators[Value], config: ModelConfig, tensors: Weights, smoothing: Sequence[Smoothing]
) -> Value:
    """Lay out a text's vector, [1, embedding_size], not normalised.

    ``smoothing`` is one a block, or empty.
    """
    cls = config.pooling == "cls"
    x = token_states(ops, config, tensors, smoothing, first_only=cls)
    if not cls:
        x = ops.pool(x, config.pooling)
    for index, dense in enumerate(config.dense):
        name = f"dense.{index}"
        bias = tensors.get(f"{name}.bias", np.zeros(dense.out_features, np.float32))
        x = ops.linear(name, x, tensors[f"{name}.weight"], bias)
        if dense.activation != "identity":
            x = ops.activation(x, dense.activation)
    return x


def token_states(
    ops: Operators[Value],
    config: ModelConfig,
    tensors: Weights,
    smoothing: Sequence[Smoothing] = (),
    *,
    first_only: bool = False,
) -> Value:
    """Lay out the last hidden states, [T, H], or those of the first token alone, [1, H]."""
    # There is one token type only: it is part of the positions.
    positions = tensors["embeddings.position_embeddings.weight"]
    positions = positions + tensors["embeddings.token_type_embeddings.weight"][0]
    x = ops.add(ops.words(tensors["embeddings.word_embeddings.weight"]), ops.positions(positions))
    if config.embedding_norm:
        x = ops.norm(x, *_parameters(tensors, "embeddings.LayerNorm"))
    for index in range(config.num_layers):
        last = first_only and index == config.num_layers - 1
        block = smoothing[index] if smoothing else Smoothing()
        name = f"encoder.layer.{index}"
        x = _block(ops, config, tensors, name, x, smoothing=block, first_only=last)
    return ops.first(x) if first_only and not config.num_layers else x


def _block(
    ops: Operators[Value],
    config: ModelConfig,
    tensors: Weights,
    name: str,
    x: Value,
    *,
    smoothing: Smoothing,
    first_only: bool,
) -> Value:
    """Lay out one block: [T, H] to [T, H], or to [1, H] if only the first token is wanted."""
    attend, mix = f"{name}.attention.self", f"{name}.attention.output.dense"
    widen, narrow = f"{name}.intermediate.dense", f"{name}.output.dense"

    def given(x: Value, norm: tuple[Array, Array], factors: Array | None) -> Value:
        """Return a product's input. Its factors are part of a norm that feeds it alone."""
        if config.norm_first:
            weight, bias = norm
            return ops.norm(
                x, *((weight, bias) if factors is None else (weight / factors, bias / factors))
            )
        # The residual needs the values as they are.
        return x if factors is None else ops.scale(x, np.float32(1) / factors)

    def residual(x: Value, y: Value, norm: tuple[Array, Array]) -> Value:
        total = ops.add(x, y)
        return total if config.norm_first else ops.norm(total, *norm)

    first = _parameters(tensors, f"{name}.attention.output.LayerNorm")
    weight, bias = _query_key_value(tensors, attend, config, smoothing.output)
    joined = ops.linear(
        attend, given(x, first, smoothing.attention), _columns(weight, smoothing.attention), bias
    )
    mixed = ops.attend(*ops.heads(joined))
    if first_only:  # what follows is done a token at a time
        x, mixed = ops.first(x), ops.first(mixed)
    weight, bias = _parameters(tensors, mix)
    x = residual(x, ops.linear(mix, mixed, _columns(weight, smoothing.output), bias), first)

    second = _parameters(tensors, f"{name}.output.LayerNorm")
    weight, bias = _parameters(tensors, widen)
    after, outer_bias = _parameters(tensors, narrow)
    if smoothing.outer is not None:  # relu(x / s) is relu(x) / s for any s above 0
        weight, bias = weight / smoothing.outer[:, None], bias / smoothing.outer
        after = after * smoothing.outer
    if smoothing.order is not None:
        weight, bias, after = (
            weight[smoothing.order],
            bias[smoothing.order],
            after[:, smoothing.order],
        )
    inner = ops.linear(
        widen, given(x, second, smoothing.inner), _columns(weight, smoothing.inner), bias
    )
    active = ops.activation(inner, config.activation)
    return residual(x, ops.linear(narrow, active, after, outer_bias, smoothing.exact), second)


def _parameters(tensors: Weights, name: str) -> tuple[Array, Array]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _columns(weight: Array, factors: Array | None) -> Array:
    return weight if factors is None else weight * factors


def _query_key_value(
    tensors: Weights, name: str, config: ModelConfig, value: Array | None
) -> tuple[Array, Array]:
    """Return the weights [3 H, H] and biases [3 H] of query, key and value as one product.

    The softmax's 1/√d is part of the query. ``value``, the factors of attention's output, divides
    the value: a mean over tokens keeps a channel's factor.
    """
    weights, biases = zip(
        *(_parameters(tensors, f"{name}.{part}") for part in ("query", "key", "value")), strict=True
    )
    weight, bias = np.concatenate(weights), np.concatenate(biases)
    hidden, root = config.hidden_size, np.float32(config.head_size**-0.5)
    weight[:hidden] *= root
    bias[:hidden] *= root
    if value is not None:
        weight[2 * hidden :] /= value[:, None]
        bias[2 * hidden :] /= value
    return weight, bias
