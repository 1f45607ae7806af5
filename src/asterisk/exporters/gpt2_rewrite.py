"""The original project's encoder as a ``gpt2`` that stock llama.cpp runs, by algebra alone.

llama.cpp has no pre-norm encoder with learned positions and biases but ``gpt2``, which normalises
once more at the end and knows no projection behind the mean. Both are undone here. The stream of
H channels is widened to W, the next multiple of 32 that the heads divide with 32 to spare, and to
L + 1 blocks; the mean over tokens and the first channels of the result are the embedding, all
other channels zero.

*Norms over W channels that equal those over H.* A LayerNorm forgets its input's mean, so every
write into the stream (tables, attention outputs, feed-forward outputs) is centred over its H
channels beforehand. With zeros in the spare channels the mean is 0 and the variance H/W of the
true one: ``eps * H/W`` and weights times ``sqrt(H/W)`` restore it exactly.

*The mean that centring takes away* matters to the projection. It is linear in the same writes, and
travels in two spare channels as ``+SMALL`` and ``-SMALL`` times itself: their sum is 0, and they
add ``2 * SMALL**2`` to a sum of squares that has about H. Much less would be lost in Q8_0, whose
scales are float16.

*Norms that are linear.* From the last true block on, two more spare channels hold ``+LARGE`` and
``-LARGE``, put there by a bias. Then the deviation that a norm divides by is
``LARGE * sqrt(2/W)`` for every token, up to ``|x|**2 / (4 * LARGE**2)``, and weights undo it.

*The projection P* is the last block: queries and keys of zero make attention the mean over tokens
m(x), its output matrix is ``P - I`` on the first channels, and a fifth spare channel takes what
keeps the sum at 0. The stream holds ``x + P m(x) - m(x)``, whose mean over tokens is ``P m(x)``.
That block's feed-forward part is zero.

*Heads* of W/n channels hold the H/n true ones and zeros; queries make up for the other divisor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import LlamaShape

SMALL = 2.0**-3
LARGE = 2.0**16
Wide = npt.NDArray[np.float64]
Linear = tuple[Wide, Wide]  # a weight and its bias
# Spare channels, counted from H.
_MEAN, _LESS_MEAN, _UP, _DOWN, _BALANCE = range(5)


def widen(checkpoint: Checkpoint, shape: LlamaShape) -> dict[str, Array]:
    """Return the tensors of ``checkpoint`` as a ``gpt2`` of ``shape``, under llama.cpp's names.

    Matrices are float32 ``[out, in]``. ``checkpoint`` is pre-norm, without embedding norm.
    """
    widening = _Widening(checkpoint, shape)
    last = checkpoint.config.num_layers
    linears: dict[str, Linear] = {}
    for index in range(last):
        linears |= widening.block(index)
    # Only the last true block's bias raises the two large channels; all norms after see them.
    _, down = linears[f"blk.{last - 1}.ffn_down"]
    down[widening.hidden + _UP], down[widening.hidden + _DOWN] = LARGE, -LARGE
    linears |= widening.projection()
    tensors = widening.embeddings()
    for name, (weight, bias) in linears.items():
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}


class _Widening:
    def __init__(self, checkpoint: Checkpoint, shape: LlamaShape) -> None:
        self.config, self.tensors, self.shape = checkpoint.config, checkpoint.tensors, shape
        self.hidden = checkpoint.config.hidden_size
        self.restore = np.sqrt(self.hidden / shape.width)
        self.flat = LARGE * np.sqrt(2 / shape.width)  # what a linear norm divides by
        head, channel = np.divmod(np.arange(self.hidden), self.config.head_size)
        self.heads = head * (shape.width // shape.heads) + channel  # a true channel's position

    def get(self, name: str) -> Wide:
        return self.tensors[name].astype(np.float64)

    def linear(self, name: str) -> Linear:
        return self.get(f"{name}.weight"), self.get(f"{name}.bias")

    def written(self, values: Wide) -> Wide:
        """Centre what is written into the stream, ``[..., H]``, and widen it to ``[..., W]``."""
        mean = values.mean(-1, keepdims=True)
        wide = np.zeros((*values.shape[:-1], self.shape.width))
        wide[..., : self.hidden] = values - mean
        wide[..., self.hidden + _MEAN] = SMALL * mean[..., 0]
        wide[..., self.hidden + _LESS_MEAN] = -SMALL * mean[..., 0]
        return wide

    def read(self, values: Wide) -> Wide:
        """Let what reads the stream, ``[..., H]``, read zeros of its spare channels."""
        spare = np.zeros((*values.shape[:-1], self.shape.width - values.shape[-1]))
        return np.concatenate([values, spare], axis=-1)

    def embeddings(self) -> dict[str, Wide]:
        positions = self.get("embeddings.position_embeddings.weight")
        positions = positions + self.get("embeddings.token_type_embeddings.weight")
        return {
            "token_embd.weight": self.written(self.get("embeddings.word_embeddings.weight")),
            "position_embd.weight": self.written(positions),
        }

    def norm(self, name: str) -> Linear:
        weight, bias = self.linear(name)
        return self.read(weight * self.restore), self.read(bias)

    def block(self, index: int) -> dict[str, Linear]:
        ours, theirs = f"encoder.layer.{index}", f"blk.{index}"
        width = self.shape.width
        qkv, qkv_bias = np.zeros((3, width, width)), np.zeros((3, width))
        for part, name in enumerate(("query", "key", "value")):
            # llama.cpp divides by the root of the wider head.
            scale = np.sqrt(width / self.hidden) if name == "query" else 1.0
            weight, bias = self.linear(f"{ours}.attention.self.{name}")
            qkv[part, self.heads], qkv_bias[part, self.heads] = (
                scale * self.read(weight),
                scale * bias,
            )
        output, output_bias = self.linear(f"{ours}.attention.output.dense")
        placed = np.zeros((width, width))
        placed[:, self.heads] = self.written(output.T).T
        up, up_bias = self.linear(f"{ours}.intermediate.dense")
        down, down_bias = self.linear(f"{ours}.output.dense")
        return {
            f"{theirs}.attn_norm": self.norm(f"{ours}.attention.output.LayerNorm"),
            f"{theirs}.attn_qkv": (qkv.reshape(-1, width), qkv_bias.ravel()),
            f"{theirs}.attn_output": (placed, self.written(output_bias)),
            f"{theirs}.ffn_norm": self.norm(f"{ours}.output.LayerNorm"),
            f"{theirs}.ffn_up": (self.read(up), up_bias),
            f"{theirs}.ffn_down": (self.written(down.T).T, self.written(down_bias)),
        }

    def projection(self) -> dict[str, Linear]:
        width, hidden, inner = self.shape.width, self.hidden, self.shape.inner
        size = self.config.embedding_size
        matrix, bias = np.eye(hidden), np.zeros(hidden)
        if self.config.dense:
            matrix = self.get("dense.0.weight")
            if self.config.dense[0].bias:
                bias = self.get("dense.0.bias")
        value = np.zeros((width, width))
        read = [*range(hidden), hidden + _MEAN]
        value[read, read] = 1.0
        value[hidden + _MEAN, hidden + _MEAN] = 1 / SMALL
        output, output_bias = np.zeros((width, width)), np.zeros(width)
        output[:size, :hidden] = matrix - np.eye(size, hidden)
        output[:size, hidden + _MEAN] = matrix.sum(1)
        output_bias[:size] = bias[:size]
        output[hidden + _BALANCE] = -output[:size].sum(0)
        output_bias[hidden + _BALANCE] = -output_bias[:size].sum()
        nothing, block = np.zeros(width), f"blk.{self.config.num_layers}"
        qkv = np.concatenate([np.zeros((2 * width, width)), value])
        return {
            f"{block}.attn_norm": (self.read(np.full(hidden + 1, self.flat)), nothing),
            f"{block}.attn_qkv": (qkv, np.zeros(3 * width)),
            f"{block}.attn_output": (output, output_bias),
            f"{block}.ffn_norm": (nothing, nothing),
            f"{block}.ffn_up": (np.zeros((inner, width)), np.zeros(inner)),
            f"{block}.ffn_down": (np.zeros((width, inner)), nothing),
            "output_norm": (self.read(np.full(size, self.flat)), nothing),
        }
