"""Encoders of BERT's family as Hugging Face's `transformers` stores them.

``config.json`` and the weights of ``BertModel``, ``RobertaModel``, ``XLMRobertaModel`` and
``DistilBertModel``, alone or under the heads they were trained with, become a `ModelConfig` and
tensors under `BertModel`'s names. Whatever would give other vectors is refused by name. Weights are
safetensors, whole or in shards, or a file that `torch.save` wrote.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import LARGEST_FILE, has_file, read_json, regular_file
from asterisk.common.plugins import require
from asterisk.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]
SINGLE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
MOST_SHARDS = 256
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DataParallel and torch.compile put before the names of the module that they wrap.
WRAPPING = frozenset({"module", "_orig_mod"})
WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between the architectures: names of settings, prefix, first position."""

    prefix: str
    settings: Mapping[str, str]
    positions_after_padding: bool = False


_SETTINGS = (  # our name, BERT's and DistilBERT's
    ("hidden_size", "hidden_size", "dim"),
    ("num_layers", "num_hidden_layers", "n_layers"),
    ("num_heads", "num_attention_heads", "n_heads"),
    ("intermediate_size", "intermediate_size", "hidden_dim"),
    ("activation", "hidden_act", "activation"),
)
_BERT = {ours: bert for ours, bert, _ in _SETTINGS}
_DISTILBERT = {ours: distilbert for ours, _, distilbert in _SETTINGS}
FAMILIES = {
    "bert": _Family("bert.", _BERT),
    "roberta": _Family("roberta.", _BERT, positions_after_padding=True),
    "xlm-roberta": _Family("roberta.", _BERT, positions_after_padding=True),
    "distilbert": _Family("distilbert.", _DISTILBERT),
}
SUPPORTED = "supported: bert, distilbert, roberta, xlm-roberta"
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# Settings that change the forward pass, and the only supported values of them.
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

    ArtifactError for other architectures, settings that are not supported, and weights that
    contradict the configuration.
    """
    where = folder / "config.json"
    kind = values.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ArtifactError(f"{where}: model_type {kind!r} is not supported; {SUPPORTED}")
    for name, allowed in _ONLY.items():
        if name in values and values[name] not in allowed:
            raise ArtifactError(f"{where}: {name} {ascii(values[name])[:80]} is not supported")
    if has_file(folder, "adapter_config.json"):
        raise ArtifactError(
            f"{folder}: adapters (adapter_config.json, PEFT) are not supported; merge them first"
        )
    found = _canonical(_weights(folder), family, folder)
    if WORDS not in found:
        raise ArtifactError(f"{folder}: its weights have no {WORDS}: are they those of a {kind}?")
    first = 0  # the row of the position table that belongs to a text's first token
    if family.positions_after_padding:
        padding = values.get("pad_token_id", 1)
        if type(padding) is not int or not 0 <= padding < 1_000:
            raise ArtifactError(
                f"{where}: pad_token_id {ascii(padding)[:40]} gives no first position"
            )
        first = padding + 1
    config = _configure(values, family, found.get(TYPES), first, where)
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
    values: Mapping[str, Any], family: _Family, types: Array | None, first: int, where: Path
) -> ModelConfig:
    names = {
        **family.settings,
        "vocab_size": "vocab_size",
        "max_positions": "max_position_embeddings",
    }
    activation = values.get(names.pop("activation"), "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ArtifactError(
            f"{where}: {family.settings['activation']} {ascii(activation)[:40]} is not supported; "
            f"there are: {', '.join(sorted(_ACTIVATIONS))}"
        )
    for name in names.values():
        if name not in values:
            raise ArtifactError(f"{where}: {name} is missing")
    read = {ours: values[theirs] for ours, theirs in names.items()}
    if type(read["max_positions"]) is int:
        read["max_positions"] -= first
    stated = values.get("type_vocab_size", 0 if family.prefix == "distilbert." else 2)
    if (0 if types is None else len(types)) != stated:
        raise ArtifactError(f"{where}: type_vocab_size {stated!r} is not that of the weights")
    epsilon = values.get("layer_norm_eps", 1e-12)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        raise ArtifactError(f"{where}: layer_norm_eps must be a number between 0 and 1")
    try:
        return ModelConfig(
            layer_norm_eps=float(epsilon),
            activation=_ACTIVATIONS[activation],
            normalize=False,
            **read,
        )
    except ArtifactError as failure:
        raise ArtifactError(f"{where}: {failure}") from None


def _weights(folder: Path) -> dict[str, Array]:
    """Return every tensor of floats in the folder's weights, whole or in shards."""
    if has_file(folder, SINGLE):
        path = regular_file(folder, SINGLE, LARGEST_FILE)
        return dict(tensors.read(path, largest=LARGEST_FILE).arrays)
    if has_file(folder, PICKLE) and not has_file(folder, INDEX):
        return read_state_dict(regular_file(folder, PICKLE, LARGEST_FILE))
    if not has_file(folder, INDEX):
        raise ArtifactError(f"{folder} has no weights: no {SINGLE}, {INDEX} or {PICKLE}")
    where, index = folder / INDEX, read_json(folder, INDEX)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise ArtifactError(f"{where} has no weight_map")
    names = sorted(set(map(str, shards.values())))
    if len(names) > MOST_SHARDS:
        raise ArtifactError(f"{where} names {len(names)} files; {MOST_SHARDS} at most")
    found: dict[str, Array] = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.safetensors", name):
            raise ArtifactError(f"{where}: {ascii(name)[:100]} is not the name of a shard")
        path = regular_file(folder, name, LARGEST_FILE)
        for tensor, value in tensors.read(path, largest=LARGEST_FILE).arrays.items():
            if tensor in found:
                raise ArtifactError(f"{where}: tensor {tensor[:100]!r} is in two shards")
            if shards.get(tensor) != name:
                raise ArtifactError(f"{where} does not say that {name} holds {tensor[:100]!r}")
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
            raise ArtifactError(f"{folder}: tensor {ascii(plain)[:100]} occurs twice")
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


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return the tensors of the state dict in ``path``, float32, by name.

    It is the whole file, or stands under one of `WRAPPERS` among other things. Tensors of whole
    numbers, such as ``position_ids``, are left out. ArtifactError for any other file, MissingExtra
    without PyTorch.

    A file that `torch.save` wrote is a zip archive of a pickle and of the tensors' bytes. The
    pickle is read by PyTorch's ``weights_only`` unpickler, which calls nothing but what makes
    tensors; the bytes are mapped, so that a tensor which claims more of them than there are cannot
    be made.
    """
    _check_archive(path)
    torch = require("torch", "torch")
    found = _load(torch, path)
    if isinstance(found, Mapping):
        inside = [name for name in WRAPPERS if isinstance(found.get(name), Mapping)]
        if len(inside) > 1:
            raise ArtifactError(f"{path} holds several state dicts: {', '.join(inside)}")
        found = found[inside[0]] if inside else found
    if not isinstance(found, Mapping) or not found:
        raise ArtifactError(f"{path} holds no state dict, alone or as {', '.join(WRAPPERS)}")
    named: dict[str, Tensor] = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ArtifactError(
                f"{path}: {ascii(name)[:100]} in its state dict is not a named tensor"
            )
        plain = ".".join(part for part in name.split(".") if part not in WRAPPING)
        if plain in named:
            raise ArtifactError(f"{path}: tensor {ascii(plain)[:100]} occurs twice")
        named[plain] = value
    # A view may repeat a few bytes without end; copied, it would fill the memory.
    if sum(it.numel() * it.element_size() for it in named.values()) > path.stat().st_size:
        raise ArtifactError(f"{path}: its tensors are larger than the file")
    whole = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
    return {
        name: _array(path, name, value) for name, value in named.items() if value.dtype not in whole
    }


def _check_archive(path: Path) -> None:
    """Refuse what is no plain, whole archive of bounded contents, before PyTorch sees it."""
    wrong = ""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            raise ArtifactError(f"{path} is not a plain file of at most {LARGEST_FILE >> 30} GiB")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                wrong = "a TorchScript program, not a state dict"
            elif not stored or sum(entry.file_size for entry in entries) > status.st_size:
                wrong = "not a file that torch.save wrote: it is compressed"
            elif damaged := archive.testzip():  # PyTorch itself does not look at the checksums
                wrong = f"damaged: {ascii(damaged)[:100]} has another checksum"
    except ArtifactError:
        raise
    except OSError as failure:
        raise ArtifactError(f"cannot read {path}: {failure.strerror or failure}") from None
    except Exception:  # BadZipFile, and what damaged entries raise
        wrong = "not a file that torch.save wrote"
    if wrong:
        raise ArtifactError(f"{path} is {wrong}")


def _load(torch: Any, path: Path) -> object:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if not foreign:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged pickle raises what it likes
        raise ArtifactError(f"{path} is not a file that torch.save wrote, or damaged") from None
    listed = ascii(", ".join(sorted(foreign)))[1:100].rstrip("'")
    raise ArtifactError(
        f"{path} holds more than tensors ({listed}) and is not opened: "
        "where it is trusted, torch.save(model.state_dict(), ...) makes one that can be"
    )


def _array(path: Path, name: str, value: Tensor) -> Array:
    if not value.is_floating_point() or value.is_quantized or value.device.type != "cpu":
        raise ArtifactError(f"{path}: tensor {ascii(name)[:100]} is no array of floats")
    try:
        # Copied: the file may change or go.
        return np.array(value.detach().float().numpy(), np.float32)
    except Exception:  # sparse, nested and other layouts
        raise ArtifactError(f"{path}: tensor {ascii(name)[:100]} is no array of floats") from None
