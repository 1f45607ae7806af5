"""Which of llama.cpp's architectures runs a model, and the sizes it then has in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asterisk.model.config import ModelConfig

SPARE = 32  # channels that widening adds at least: one block of Q8_0


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as llama.cpp counts it; sizes are counts of elements."""

    architecture: str
    width: int
    blocks: int
    inner: int
    heads: int
    epsilon: float


def shape_of(config: ModelConfig) -> Shape | None:
    """Return the shape of ``config`` in the file, or None if llama.cpp has none for it.

    BERT is there as it is. A pre-norm encoder without a final norm becomes a wider ``gpt2`` of one
    block more: see `asterisk.exporters.widening`.
    """
    if not config.num_layers:
        return None
    hidden, heads = config.hidden_size, config.num_heads
    if config.embedding_norm and not (config.norm_first or config.projection_size):
        return Shape(
            "bert",
            hidden,
            config.num_layers,
            config.intermediate_size,
            heads,
            config.layer_norm_eps,
        )
    if config.norm_first and not config.embedding_norm and config.embedding_size <= hidden:
        step = math.lcm(SPARE, heads)
        width = -(-(hidden + SPARE) // step) * step
        return Shape(
            "gpt2",
            width,
            config.num_layers + 1,
            config.intermediate_size,
            heads,
            config.layer_norm_eps * hidden / width,
        )
    return None
