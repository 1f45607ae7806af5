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
from asterisk.model.config import LIMITS, Dense, ModelConfig, check, tensor_shapes
from asterisk.model.huggingface import TYPES, read_state_dict

HEADS = 2
EPSILON = 1e-5  # nn.TransformerEncoderLayer's, which no file says
# GPT-2's, alone or with the tokens that the original adds after it: [PAD], [MASK].
VOCABULARIES = (50_257, 50_258, 50_259)

_LAYER = re.compile(r"encoder\.layers\.([0-9]{1,4})\.")
# The original's names, and ours of the equal parts that a tensor is cut into.
_TENSORS = {
    "token_emb.weight": ["embeddings.word_embeddings.weight"],
    "pos_emb.weight": ["embeddings.position_embeddings.weight"],
    "proj.weight": ["dense.0.weight"],
    "proj.bias": ["dense.0.bias"],
}
_OF_LAYER = {
    "self_attn.in_proj_": [f"attention.self.{part}" for part in ("query", "key", "value")],
    "self_attn.out_proj.": ["attention.output.dense"],
    "linear1.": ["intermediate.dense"],
    "linear2.": ["output.dense"],
    "norm1.": ["attention.output.LayerNorm"],
    "norm2.": ["output.LayerNorm"],
}


def read(path: str | Path, name: str, heads: int = HEADS) -> Checkpoint:
    """Return the checkpoint ``name`` of the original's state dict at ``path``.

    ArtifactError for another file, UsageError for ``heads`` that do not divide its hidden size.
    """
    path = Path(path)
    tensors = read_state_dict(path)
    try:
        config = _configure(tensors, heads)
        renamed = _renamed(tensors, config)
    except ArtifactError as failure:
        raise ArtifactError(f"{path} is not the original's model: {failure}") from None
    return Checkpoint(name, config, renamed, card=_card(name, path, config))


def _configure(tensors: Mapping[str, Array], heads: int) -> ModelConfig:
    def shape(name: str) -> tuple[int, ...]:
        matrix = name in tensors and tensors[name].ndim == 2
        check(matrix, f"{name} is missing, or no matrix")
        return tensors[name].shape

    vocabulary, hidden = shape("token_emb.weight")
    stated = f"token_emb.weight has {vocabulary:,} rows"
    check(vocabulary in VOCABULARIES, f"{stated}, GPT-2's vocabulary 50,257 to 50,259")
    layers = [int(found[1]) for name in tensors if (found := _LAYER.match(name))]
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


def _renamed(tensors: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """Return the tensors under the names of `tensor_shapes`; ArtifactError for wrong ones."""
    layout = dict(_TENSORS)
    for index in range(config.num_layers):
        for theirs, ours in _OF_LAYER.items():
            for kind in ("weight", "bias"):
                names = [f"encoder.layer.{index}.{name}.{kind}" for name in ours]
                layout[f"encoder.layers.{index}.{theirs}{kind}"] = names
    shapes = tensor_shapes(config)
    # There are no token types here; BERT's one is added to every token.
    renamed = {TYPES: np.zeros(shapes[TYPES], np.float32)}
    for name, names in layout.items():
        check(name in tensors, f"{name} is missing")
        value, (rows, *columns) = tensors[name], shapes[names[0]]
        has, expected = list(value.shape), [rows * len(names), *columns]
        check(has == expected, f"{name} has shape {has}, expected {expected}")
        check(np.isfinite(value).all(), f"{name} holds values that are not finite")
        renamed |= zip(names, np.split(value, len(names)), strict=True)
    for name in sorted(set(tensors) - set(layout)):
        raise ArtifactError(f"unexpected tensor {ascii(name)[:100]}")
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
