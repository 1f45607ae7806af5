"""The original project's `model.pt` as a checkpoint of ours.

`asterisk-embedding-model` is ``nn.Embedding`` for tokens and positions, an
``nn.TransformerEncoder`` of pre-norm layers with the exact GELU and no norm at its end, the mean
over tokens, and ``nn.Linear``. Its state dict says every size but the number of heads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from asterisk.common.errors import ArtifactError, UsageError
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import LIMITS, Dense, ModelConfig
from asterisk.model.state_dict import read_state_dict

HEADS = 2
EPSILON = 1e-5  # nn.TransformerEncoderLayer's, which no file says
# GPT-2's, alone or with the tokens that the original adds after it: [PAD], [MASK].
VOCABULARIES = (50_257, 50_258, 50_259)
Shapes = dict[str, tuple[int, ...]]

_OUTER = {
    "token_emb": "embeddings.word_embeddings",
    "pos_emb": "embeddings.position_embeddings",
    "proj": "dense.0",
}
_INNER = {
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}
_PARTS = ("query", "key", "value")  # in the order of in_proj's rows


def read(path: str | Path, name: str, heads: int = HEADS) -> Checkpoint:
    """Return the checkpoint ``name`` of the original's state dict at ``path``.

    ArtifactError for a file that is not such a state dict, UsageError for ``heads`` that its
    hidden size does not divide into, MissingExtra without PyTorch.
    """
    path = Path(path)
    tensors = read_state_dict(path)
    try:
        config = _configure(tensors, heads)
        _check(tensors, config)
    except ArtifactError as failure:
        raise ArtifactError(f"{path} is not the original's model: {failure}") from None
    return Checkpoint(name, config, _renamed(tensors, config), card=_card(name, path, config))


def _configure(tensors: Mapping[str, Array], heads: int) -> ModelConfig:
    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != 2:
            raise ArtifactError(f"{name} is missing, or no matrix")
        return tensors[name].shape

    vocabulary, hidden = shape("token_emb.weight")
    if vocabulary not in VOCABULARIES:
        raise ArtifactError(
            f"token_emb.weight has {vocabulary:,} rows, GPT-2's vocabulary "
            f"{VOCABULARIES[0]:,} to {VOCABULARIES[-1]:,}"
        )
    layers = [int(found[1]) for name in tensors if (found := _layer(name))]
    config = ModelConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_layers=max(layers, default=0) + 1,
        num_heads=1,
        intermediate_size=shape("encoder.layers.0.linear1.weight")[0],
        max_positions=shape("pos_emb.weight")[0],
        layer_norm_eps=EPSILON,
        norm_first=True,
        embedding_norm=False,
        dense=(Dense(shape("proj.weight")[0]),),
    )
    if not 1 <= heads <= LIMITS["num_heads"] or hidden % heads:
        raise UsageError(f"{heads} heads do not divide the model's hidden size of {hidden}")
    return replace(config, num_heads=heads)


def _layer(name: str) -> re.Match[str] | None:
    return re.match(r"encoder\.layers\.([0-9]{1,4})\.", name)


def _shapes(config: ModelConfig) -> Shapes:
    """Return the original's names and shapes for ``config``."""
    hidden, inner, out = config.hidden_size, config.intermediate_size, config.embedding_size
    shapes: Shapes = {
        "token_emb.weight": (config.vocab_size, hidden),
        "pos_emb.weight": (config.max_positions, hidden),
        "proj.weight": (out, hidden),
        "proj.bias": (out,),
    }
    for index in range(config.num_layers):
        layer = f"encoder.layers.{index}"
        shapes[f"{layer}.self_attn.in_proj_weight"] = (3 * hidden, hidden)
        shapes[f"{layer}.self_attn.in_proj_bias"] = (3 * hidden,)
        for part, rows, columns in (
            ("self_attn.out_proj", hidden, hidden),
            ("linear1", inner, hidden),
            ("linear2", hidden, inner),
        ):
            shapes[f"{layer}.{part}.weight"] = (rows, columns)
            shapes[f"{layer}.{part}.bias"] = (rows,)
        for norm in ("norm1", "norm2"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (hidden,)
    return shapes


def _check(tensors: Mapping[str, Array], config: ModelConfig) -> None:
    shapes = _shapes(config)
    for name, shape in shapes.items():
        if name not in tensors:
            raise ArtifactError(f"{name} is missing")
        if tensors[name].shape != shape:
            raise ArtifactError(
                f"{name} has shape {list(tensors[name].shape)}, expected {list(shape)}"
            )
        if not np.isfinite(tensors[name]).all():
            raise ArtifactError(f"{name} holds values that are not finite")
    extra = set(tensors) - set(shapes)
    if extra:
        raise ArtifactError(f"unexpected tensor {ascii(min(extra))[:100]}")


def _renamed(tensors: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """Return the tensors under the names of `asterisk.model.layout.tensor_shapes`."""
    renamed = {
        # There are no token types here; BERT's one is added to every token.
        "embeddings.token_type_embeddings.weight": np.zeros((1, config.hidden_size), np.float32)
    }
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        layer = _layer(name)
        if layer is None:
            renamed[f"{_OUTER[module]}.{kind}"] = value
            continue
        block = f"encoder.layer.{int(layer[1])}"
        module = module[layer.end() :]
        if module in _INNER:
            renamed[f"{block}.{_INNER[module]}.{kind}"] = value
            continue
        # self_attn.in_proj_weight and _bias: three maps on top of each other.
        kind = kind.removeprefix("in_proj_")
        for part, rows in zip(_PARTS, np.split(value, len(_PARTS)), strict=True):
            renamed[f"{block}.attention.self.{part}.{kind}"] = rows
    return renamed


def _card(name: str, path: Path, config: ModelConfig) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = path.name.encode("utf-8", "replace").decode()
    return f"""# {name}

Imported by `asterisk-import` from `{source}` (sha256 {digest}), a state dict of
`asterisk-embedding-model`: {config.num_layers} pre-norm layers of {config.hidden_size}, \
{config.num_heads} heads, a projection to {config.embedding_size}.
Opened by `asterisk.load` and exported by `asterisk-export`; `transformers` has no such model.

A vector is the mean over the text's own tokens, at most {config.max_positions}, projected and \
L2-normalised. The
original's code pads to 128 tokens without a mask: its vectors are others, and not comparable.
"""
