"""The encoder's forward pass for one text, in numpy, as `asterisk.model.encoder` defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.model.config import ModelConfig

Floats = npt.NDArray[np.float32]
# Abramowitz and Stegun, 7.1.26: within 1.5e-7 of erf, which numpy does not have.
_P = np.float32(0.3275911)
_A = [*map(np.float32, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))]


class Encoder:
    """Token ids to one vector. Layers are float32 in memory; of the table, only rows in use are."""

    def __init__(
        self, config: ModelConfig, arrays: Mapping[str, npt.NDArray[Any]], scale: str
    ) -> None:
        self.config = config
        table = "embeddings.word_embeddings.weight"
        self.words, self.word_scales = arrays[table], arrays.get(table + scale)
        self.weights = {
            name: _wide(array, arrays.get(name + scale))
            for name, array in arrays.items()
            if name != table and not name.endswith(scale)
        }
        self.positions = self.weights["embeddings.position_embeddings.weight"]
        self.positions = self.positions + self.weights["embeddings.token_type_embeddings.weight"]

    def __call__(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Embed ids [T], float32 [embedding_size], not normalised."""
        scales = None if self.word_scales is None else self.word_scales[ids]
        x = _wide(self.words[ids], scales) + self.positions[: len(ids)]
        if self.config.embedding_norm:
            x = self.norm("embeddings.LayerNorm", x)
        for index in range(self.config.num_layers):
            x = self.block(f"encoder.layer.{index}", x)
        pooled: Floats = x.mean(0)
        return pooled

    def block(self, name: str, x: Floats) -> Floats:
        """Map hidden states [T, H] to hidden states [T, H], pre-norm or post-norm."""
        first, second = f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"
        if self.config.norm_first:
            x = x + self.attention(f"{name}.attention", self.norm(first, x))
            return x + self.feed_forward(name, self.norm(second, x))
        x = self.norm(first, x + self.attention(f"{name}.attention", x))
        return self.norm(second, x + self.feed_forward(name, x))

    def attention(self, name: str, x: Floats) -> Floats:
        """Attend head by head: [T, H] to [T, H]."""
        heads, size = self.config.num_heads, self.config.head_size
        query, key, value = (
            self.dense(f"{name}.self.{part}", x).reshape(-1, heads, size).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) * np.float32(size**-0.5)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(len(x), -1)
        return self.dense(f"{name}.output.dense", mixed)

    def feed_forward(self, name: str, x: Floats) -> Floats:
        """Widen, GELU, narrow: [T, H] to [T, H]."""
        inner = self.dense(f"{name}.intermediate.dense", x)
        inner *= np.float32(0.5) * (1 + erf(inner * np.float32(0.5**0.5)))
        return self.dense(f"{name}.output.dense", inner)

    def dense(self, name: str, x: Floats) -> Floats:
        """Apply the linear map ``name`` to each row of ``x``."""
        found: Floats = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return found

    def norm(self, name: str, x: Floats) -> Floats:
        """Apply the LayerNorm ``name`` to each row of ``x``."""
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        unit: Floats = centred / np.sqrt(variance + np.float32(self.config.layer_norm_eps))
        return unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def erf(x: Floats) -> Floats:
    """Return the error function of ``x``, within a few float32 roundings."""
    t = 1 / (1 + _P * np.abs(x))
    series = np.zeros_like(t)
    for factor in _A:
        series = (series + factor) * t
    found: Floats = np.copysign(1 - series * np.exp(-x * x), x)
    return found


def _wide(array: npt.NDArray[Any], scales: npt.NDArray[Any] | None) -> Floats:
    wide = array.astype(np.float32)
    return wide if scales is None else wide * scales[:, None]
