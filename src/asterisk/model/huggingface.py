"""Encoders of BERT's family as Hugging Face's `transformers` stores them.

``config.json`` and the weights of ``BertModel``, ``RobertaModel``, ``XLMRobertaModel`` and
``DistilBertModel``, alone or under the heads they were trained with, become a `ModelConfig` and
tensors under `BertModel`'s names. Whatever would give other vectors is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import LARGEST_FILE, has_file, read_json, regular_file
from asterisk.model.config import ModelConfig

Array = npt.NDArray[np.float32]
SINGLE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
MOST_SHARDS = 256
WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between the architectures: names of settings, prefix, first position."""

    prefix: str
    settings: Mapping[str, str]
    positions_after_padding: bool = False


_BERT = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "activation": "hidden_act",
}
_DISTILBERT = {
    "hidden_size": "dim",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "activation": "activation",
}
FAMILIES = {
    "bert": _Family("bert.", _BERT),
    "roberta": _Family("roberta.", _BERT, positions_after_padding=True),
    "xlm-roberta": _Family("roberta.", _BERT, positions_after_padding=True),
    "distilbert": _Family("distilbert.", _DISTILBERT),
}
SUPPORTED = "supported are bert, distilbert, roberta and xlm-roberta"
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Settings that change the forward pass, and the only values of them that are done here.
_ONLY: Mapping[str, tuple[object, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": (None,),
    "embedding_size": (None,),
    "rope_scaling": (None,),
}
_DISTILBERT_PARTS = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = re.compile(r"transformer\.layer\.(\d+)\.(.+)\.(weight|bias)")
# Heads that an encoder was trained with, or is followed by: not part of an embedding.
_HEADS = re.compile(
    r"(pooler|cls|lm_head|classifier|pre_classifier|qa_outputs|score|vocab_transform|"
    r"vocab_layer_norm|vocab_projector)\."
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model folder's encoder: its shape, its tensors, and what kind of model it says it is.

    ``padding`` is the id from which RoBERTa's positions are counted; None in other families.
    """

    config: ModelConfig
    tensors: Mapping[str, Array]
    model_type: str
    padding: int | None


def is_model(folder: Path) -> bool:
    """Tell whether ``folder`` holds an encoder's configuration and weights."""
    return has_file(folder, "config.json") and any(
        has_file(folder, name) for name in (SINGLE, INDEX, PICKLE)
    )


def read_encoder(folder: Path, values: Mapping[str, Any]) -> Encoder:
    """Read the encoder of ``folder``; ``values`` is its ``config.json``.

    ArtifactError for other architectures, settings that are not done, and weights that contradict
    the configuration.
    """
    where = folder / "config.json"
    kind = values.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ArtifactError(f"{where}: model_type {kind!r} is not supported; {SUPPORTED}")
    for name, allowed in _ONLY.items():
        if name in values and values[name] not in allowed:
            told = ascii(values[name])[:80]
            raise ArtifactError(f"{where}: {name} {told} is not supported")
    if has_file(folder, "adapter_config.json"):
        raise ArtifactError(
            f"{folder}: adapters (adapter_config.json, PEFT) are not supported; merge them first"
        )
    found = _canonical(_weights(folder), family, folder)
    if WORDS not in found:
        raise ArtifactError(f"{folder}: its weights have no {WORDS}: are they those of a {kind}?")
    config = _configure(values, family, found, where)
    first = _first_position(values, family, where)
    rows = first + config.max_positions
    positions = found.get(POSITIONS)
    if positions is None or positions.ndim != 2 or len(positions) != rows:
        has = "is missing" if positions is None else f"has {len(positions)} rows"
        raise ArtifactError(f"{folder}: {POSITIONS} {has}, config.json says {rows}")
    found[POSITIONS] = positions[first:]
    types = found.get(TYPES)
    # A text on its own is of the first type.
    none = np.zeros((1, config.hidden_size), np.float32)
    found[TYPES] = none if types is None else types[:1]
    return Encoder(config, found, str(kind), first - 1 if family.positions_after_padding else None)


def _configure(
    values: Mapping[str, Any], family: _Family, found: Mapping[str, Array], where: Path
) -> ModelConfig:
    read: dict[str, Any] = {}
    for ours, theirs in {
        **family.settings,
        "vocab_size": "vocab_size",
        "max_positions": "max_position_embeddings",
    }.items():
        if ours == "activation":
            name = values.get(theirs, "gelu")
            if not isinstance(name, str) or name not in _ACTIVATIONS:
                known = ", ".join(sorted(_ACTIVATIONS))
                raise ArtifactError(
                    f"{where}: {theirs} {ascii(name)[:40]} is not supported; there are: {known}"
                )
            read[ours] = _ACTIVATIONS[name]
        elif theirs not in values:
            raise ArtifactError(f"{where}: {theirs} is missing")
        else:
            read[ours] = values[theirs]
    if type(read["max_positions"]) is int:
        read["max_positions"] -= _first_position(values, family, where)
    types = values.get("type_vocab_size", 0 if family.prefix == "distilbert." else 2)
    table = found.get(TYPES)
    if (0 if table is None else len(table)) != types:
        raise ArtifactError(f"{where}: type_vocab_size {types!r} is not that of the weights")
    epsilon = values.get("layer_norm_eps", 1e-12)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        raise ArtifactError(f"{where}: layer_norm_eps must be a number between 0 and 1")
    try:
        return ModelConfig(layer_norm_eps=float(epsilon), normalize=False, **read)
    except ArtifactError as failure:
        raise ArtifactError(f"{where}: {failure}") from None


def _first_position(values: Mapping[str, Any], family: _Family, where: Path) -> int:
    """Return the row of the position table that belongs to a text's first token."""
    if not family.positions_after_padding:
        return 0
    padding = values.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding < 1_000:
        raise ArtifactError(f"{where}: pad_token_id {ascii(padding)[:40]} says no first position")
    return padding + 1


def _weights(folder: Path) -> dict[str, Array]:
    """Return every tensor of floats in the folder's weights, whole or in shards."""
    if has_file(folder, SINGLE):
        return dict(tensors.read(_file(folder, SINGLE), largest=LARGEST_FILE).arrays)
    if has_file(folder, INDEX):
        return _shards(folder)
    if has_file(folder, PICKLE):
        from asterisk.model.state_dict import read_state_dict

        return read_state_dict(_file(folder, PICKLE))
    raise ArtifactError(f"{folder} has no weights: no {SINGLE}, {INDEX} or {PICKLE}")


def _file(folder: Path, name: str) -> Path:
    return regular_file(folder, name, LARGEST_FILE)


def _shards(folder: Path) -> dict[str, Array]:
    index = read_json(folder, INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ArtifactError(f"{folder / INDEX} has no weight_map")
    names = sorted(set(map(str, places.values())))
    if len(names) > MOST_SHARDS:
        raise ArtifactError(f"{folder / INDEX} names {len(names)} files; {MOST_SHARDS} at most")
    found: dict[str, Array] = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.safetensors", name):
            raise ArtifactError(f"{folder / INDEX}: {ascii(name)[:100]} is no name of a shard")
        for tensor, value in tensors.read(_file(folder, name), largest=LARGEST_FILE).arrays.items():
            if tensor in found:
                raise ArtifactError(f"{folder / INDEX}: tensor {tensor[:100]!r} is in two shards")
            if places.get(tensor) != name:
                raise ArtifactError(
                    f"{folder / INDEX} does not say that {name} holds {tensor[:100]!r}"
                )
            found[tensor] = value
    return found


def _canonical(stored: Mapping[str, Array], family: _Family, folder: Path) -> dict[str, Array]:
    """Return the encoder's tensors under BertModel's names, heads left out."""
    found: dict[str, Array] = {}
    for name, value in stored.items():
        plain = name.removeprefix(family.prefix)
        if _HEADS.match(plain):
            continue
        plain = plain.replace(".gamma", ".weight").replace(".beta", ".bias")  # BERT's first names
        if layer := _DISTILBERT_LAYER.fullmatch(plain):
            index, part, what = layer.groups()
            if family.prefix != "distilbert." or part not in _DISTILBERT_PARTS:
                raise ArtifactError(f"{folder}: unexpected tensor {ascii(name)[:100]}")
            plain = f"encoder.layer.{int(index)}.{_DISTILBERT_PARTS[part]}.{what}"
        if plain in found:
            raise ArtifactError(f"{folder}: tensor {ascii(plain)[:100]} stands twice")
        found[plain] = value
    return found


def to_json(config: ModelConfig, padding: int) -> dict[str, Any]:
    """Return ``config.json`` as Hugging Face's BertModel reads it.

    Weights are stored in 16 bits but computed in 32, hence ``dtype``. ``padding`` is the id that
    fills a batch.
    """
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
        "hidden_act": names[config.activation],
        "hidden_dropout_prob": 0.0,
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "max_position_embeddings": config.max_positions,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": padding,
        "type_vocab_size": 1,
        "vocab_size": config.vocab_size,
    }
