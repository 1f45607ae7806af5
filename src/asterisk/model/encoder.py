"""The encoder as a PyTorch module, attention written out.

Parameter names are those of Hugging Face's ``BertModel``, so a state dict needs no translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
}


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention: softmax(QKᵀ/√d + mask) V."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, hidden = config.num_heads, config.hidden_size
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Attend within each row of ``x`` [B, T, H] under an additive ``bias`` [B, 1, 1, T]."""
        batch, length, hidden = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, -1).transpose(1, 2)

        # Scaled before the product and in its own precision: the scores are the largest array.
        q = split(self.query(x) / math.sqrt(hidden // self.heads))
        k, v = split(self.key(x)), split(self.value(x))
        scores = q @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        mixed = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(batch, length, hidden)


class Output(nn.Module):
    """A linear map and the LayerNorm that belongs to its residual."""

    def __init__(self, inputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Attention(nn.Module):
    """Self-attention and its output map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config.hidden_size, config)


class Intermediate(nn.Module):
    """The feed-forward network's widening map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)


class Block(nn.Module):
    """One transformer block, post-norm as in BERT or pre-norm as in the original project."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.activation = ACTIVATIONS[config.activation]
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config.intermediate_size, config)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map hidden states [B, T, H] to hidden states [B, T, H]."""
        attend, attended = self.attention.self, self.attention.output
        widen, narrowed = self.intermediate.dense, self.output
        if self.norm_first:
            x = x + attended.dense(attend(attended.LayerNorm(x), bias))
            inner = self.activation(widen(narrowed.LayerNorm(x)))
            return x + cast(Tensor, narrowed.dense(inner))
        x = attended.LayerNorm(x + attended.dense(attend(x, bias)))
        inner = self.activation(widen(x))
        return cast(Tensor, narrowed.LayerNorm(x + narrowed.dense(inner)))


class Embeddings(nn.Module):
    """Token and position vectors, summed and normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(1, config.hidden_size)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.LayerNorm = norm if config.embedding_norm else nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [B, T] to vectors [B, T, H]."""
        positions = self.position_embeddings.weight[: ids.shape[1]]
        x = self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0]
        return cast(Tensor, self.LayerNorm(x))


class Encoder(nn.Module):
    """Token ids to one vector a text, which no padding reaches."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        sizes = [config.hidden_size, *(dense.out_features for dense in config.dense)]
        self.dense = nn.ModuleList(
            nn.Linear(width, dense.out_features, bias=dense.bias)
            for width, dense in zip(sizes, config.dense, strict=False)
        )

    @property
    def blocks(self) -> list[Block]:
        """The transformer blocks, first to last."""
        return [cast(Block, block) for block in cast(nn.ModuleList, self.encoder["layer"])]

    def tokens(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden states, float [B, T, H].

        ``ids`` is int64 [B, T]; ``mask`` is bool [B, T], true at tokens; None means no padding.
        """
        x: Tensor = self.embeddings(ids)
        bias = None
        if mask is not None:
            lowest = torch.finfo(x.dtype).min
            bias = (~mask)[:, None, None, :].to(x.dtype) * lowest
        for block in self.blocks:
            x = block(x, bias)
        return x

    def project(self, pooled: Tensor) -> Tensor:
        """Apply the maps after pooling: [..., H] to [..., embedding_size]."""
        for linear, dense in zip(self.dense, self.config.dense, strict=True):
            pooled = linear(pooled)
            if dense.activation == "tanh":
                pooled = pooled.tanh()
        return pooled

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector a text, float [B, embedding_size], not normalised; see `tokens`."""
        return self.project(pool(self.tokens(ids, mask), mask, self.config.pooling))


def of_checkpoint(checkpoint: Checkpoint) -> Encoder:
    """Return an encoder with the weights of ``checkpoint``, float32."""
    model = Encoder(checkpoint.config)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.tensors.items()})
    return model


def pool(x: Tensor, mask: Tensor | None, how: str = "mean") -> Tensor:
    """Pool the tokens of each text, [B, T, H] to [B, H], by one of `config.POOLINGS`.

    Padding is on the right. ``mean_sqrt_len_tokens`` divides the sum by the root of the length.
    """
    if how == "cls":
        return x[:, 0]
    if how == "max":
        if mask is not None:
            x = x.masked_fill(~mask[..., None], -torch.inf)
        return x.amax(1)
    if mask is None:
        mean = x.mean(1)
        return mean * math.sqrt(x.shape[1]) if how == "mean_sqrt_len_tokens" else mean
    weights = mask.to(x.dtype)
    count = weights.sum(1, keepdim=True)
    total = (x * weights[..., None]).sum(1)
    return total / (count.sqrt() if how == "mean_sqrt_len_tokens" else count)
