"""The encoder's forward pass for one text, described once for every graph format.

A format implements `Operators`: how each operator is written down, and how weights are rounded.
Which operators follow one another, and over which weights, stands here alone. The truth is
`asterisk.model.encoder.Encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from asterisk.model.config import ModelConfig

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Value = TypeVar("Value")
"""What a format knows a tensor of its graph by."""


@dataclass(frozen=True, slots=True)
class Cure:
    """How a product loses less when it is rounded; see `asterisk.exporters.calibration`.

    The input's channels are divided by ``factors`` [in], and the weights multiplied by them, before
    both are rounded; None leaves them alone. Channels ``exact``, ascending, are multiplied in
    float32. Of the feed-forward's second product they are computed in float32 as well: they are
    inner channels, which belong to nothing else.
    """

    factors: Array | None = None
    exact: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))


PLAIN = Cure()
Cures = Mapping[str, Cure]
"""The cures of one block, by `PARTS`; what is not named is plain."""
PARTS = ("attention", "output", "inner", "outer")
"""A block's products: query-key-value, attention's output, the feed-forward's first and second."""


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

    def norm(self, x: Value, weight: Array, bias: Array) -> Value:
        """Apply LayerNorm to each row of ``x`` [T, H]."""
        ...

    def linear(self, name: str, x: Value, weight: Array, bias: Array, cure: Cure = PLAIN) -> Value:
        """Apply ``weight`` [out, in] and ``bias`` [out] to each row of ``x``: [T, out].

        ``cure`` says how a product that is rounded loses less; it changes nothing else.
        """
        ...

    def exact(self, name: str, x: Value, weight: Array, added: Value | Array) -> Value:
        """Multiply in float32 whatever the recipe, and add a bias [out] or a tensor [T, out]."""
        ...

    def heads(self, x: Value) -> tuple[Value, Value, Value]:
        """Split ``x`` [T, 3 H] into query, key and value, [h, T, d] each."""
        ...

    def attend(self, query: Value, key: Value, value: Value, largest: float = math.inf) -> Value:
        """Return softmax(QKᵀ) V, heads side by side: [T, H]. Q is scaled already.

        ``largest`` is the largest magnitude among the scores QKᵀ of sample texts, if it is known.
        """
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


def sentence_embedding(
    ops: Operators[Value],
    config: ModelConfig,
    tensors: Weights,
    cures: Sequence[Cures],
    scores: Sequence[float] = (),
) -> Value:
    """Lay out a text's vector, [1, embedding_size], not normalised.

    ``cures`` are one set a block, or none; ``scores`` the largest of each block's attention on
    sample texts, or none.
    """
    cls = config.pooling == "cls"
    x = token_states(ops, config, tensors, cures, scores, first_only=cls)
    return dense(ops, config, tensors, x if cls else ops.pool(x, config.pooling))


def dense(ops: Operators[Value], config: ModelConfig, tensors: Weights, x: Value) -> Value:
    """Lay out the maps after pooling: [1, H] to [1, embedding_size]."""
    for index, layer in enumerate(config.dense):
        name = f"dense.{index}"
        bias = tensors.get(f"{name}.bias", np.zeros(layer.out_features, np.float32))
        x = ops.linear(name, x, tensors[f"{name}.weight"], bias)
        if layer.activation != "identity":
            x = ops.activation(x, layer.activation)
    return x


def token_states(
    ops: Operators[Value],
    config: ModelConfig,
    tensors: Weights,
    cures: Sequence[Cures] = (),
    scores: Sequence[float] = (),
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
        block = cures[index] if cures else {}
        largest = scores[index] if scores else math.inf
        name = f"encoder.layer.{index}"
        x = _block(ops, config, tensors, name, x, cures=block, largest=largest, first_only=last)
    return ops.first(x) if first_only and not config.num_layers else x


def _block(
    ops: Operators[Value],
    config: ModelConfig,
    tensors: Weights,
    name: str,
    x: Value,
    *,
    cures: Cures,
    largest: float,
    first_only: bool,
) -> Value:
    """Lay out one block: [T, H] to [T, H], or to [1, H] if only the first token is wanted."""
    attend, mix = f"{name}.attention.self", f"{name}.attention.output.dense"
    widen, narrow = f"{name}.intermediate.dense", f"{name}.output.dense"
    attention, output, inner, outer = (cures.get(part, PLAIN) for part in PARTS)

    def first_product(
        name: str, x: Value, norm: tuple[Array, Array], linear: tuple[Array, Array], cure: Cure
    ) -> Value:
        """Apply what a norm of its own precedes in a pre-norm model: factors are part of that."""
        if not config.norm_first:
            return ops.linear(name, x, *linear, cure)
        x = ops.norm(x, *(_divided(each, cure.factors) for each in norm))
        weight, bias = linear
        return ops.linear(name, x, _times(weight, cure.factors), bias, replace(cure, factors=None))

    def residual(x: Value, y: Value, norm: tuple[Array, Array]) -> Value:
        total = ops.add(x, y)
        return total if config.norm_first else ops.norm(total, *norm)

    norm = _parameters(tensors, f"{name}.attention.output.LayerNorm")
    joined = _query_key_value(tensors, attend, config, output.factors)
    parts = ops.heads(first_product(attend, x, norm, joined, attention))
    mixed = ops.attend(*parts, largest)
    if first_only:  # what follows is done a token at a time
        x, mixed = ops.first(x), ops.first(mixed)
    weight, bias = _parameters(tensors, mix)
    x = residual(x, ops.linear(mix, mixed, _times(weight, output.factors), bias), norm)

    norm = _parameters(tensors, f"{name}.output.LayerNorm")
    before, before_bias = _parameters(tensors, widen)
    weight, bias = _parameters(tensors, narrow)
    if outer.factors is not None:  # with ReLU only: relu(x / s) is relu(x) / s
        before, before_bias = before / outer.factors[:, None], before_bias / outer.factors
        weight = weight * outer.factors
    few = outer.exact
    most: npt.NDArray[np.intp] | slice = slice(None)  # copies nothing
    if len(few):
        most = np.delete(np.arange(weight.shape[1]), few)
    wide = first_product(widen, x, norm, (before[most], before_bias[most]), inner)
    y = ops.linear(narrow, ops.activation(wide, config.activation), weight[:, most], bias)
    if len(few):  # a small feed-forward beside the large one
        given = ops.norm(x, *norm) if config.norm_first else x
        small = ops.exact(f"{widen}.exact", given, before[few], before_bias[few])
        small = ops.activation(small, config.activation)
        y = ops.exact(f"{narrow}.exact", small, weight[:, few], y)
    return residual(x, y, norm)


def _parameters(tensors: Weights, name: str) -> tuple[Array, Array]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _times(values: Array, factors: Array | None) -> Array:
    return values if factors is None else values * factors


def _divided(values: Array, factors: Array | None) -> Array:
    return values if factors is None else values / factors


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
