"""Which of llama.cpp's architectures runs a model, and the sizes it then has in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asterisk.model.config import ModelConfig

SPARE = 32  # channels that widening adds at least: one block of Q8_0
# llama_pooling_type. The root of the length is a factor on the mean; llama.cpp has no maximum, so
# there it puts out every token's vector.
POOLING = {"mean": 1, "mean_sqrt_len_tokens": 1, "cls": 2, "max": 0}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as llama.cpp counts it; sizes are counts of elements.

    ``pooling`` is its ``llama_pooling_type``. ``dense_outside`` says that the maps after pooling
    are not in the model's file.
    """

    architecture: str
    width: int
    blocks: int
    inner: int
    heads: int
    epsilon: float
    pooling: int
    dense_outside: bool


def shape_of(config: ModelConfig) -> Shape | None:
    """Return the shape of ``config`` in the file, or None if llama.cpp has none for it.

    BERT is there as it is, up to its pooling. A pre-norm encoder without a final norm, with the
    mean and at most one linear map behind it, becomes a wider ``gpt2`` of one block more: see
    `asterisk.exporters.widening`.
    """
    if not config.num_layers:
        return None
    hidden, heads, pooling = config.hidden_size, config.num_heads, POOLING[config.pooling]
    if config.bert_shaped:
        return Shape(
            "bert",
            hidden,
            config.num_layers,
            config.intermediate_size,
            heads,
            config.layer_norm_eps,
            pooling,
            dense_outside=bool(config.dense),
        )
    if config.norm_first and not config.embedding_norm and _can_widen(config):
        step = math.lcm(SPARE, heads)
        width = -(-(hidden + SPARE) // step) * step
        return Shape(
            "gpt2",
            width,
            config.num_layers + 1,
            config.intermediate_size,
            heads,
            config.layer_norm_eps * hidden / width,
            pooling,
            dense_outside=False,
        )
    return None


def _can_widen(config: ModelConfig) -> bool:
    linear = [dense.activation for dense in config.dense] in ([], ["identity"])
    return linear and config.pooling == "mean" and config.embedding_size <= config.hidden_size
