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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import LARGEST_FILE, has_file, read_json, regular_file
from asterisk.common.plugins import require
from asterisk.model.config import ModelConfig, check

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]
SINGLE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DataParallel and torch.compile put before the names of the module that they wrap.
WRAPPING = frozenset({"module", "_orig_mod"})
WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"

# What stands before the names of tensors in a model with a head.
_PREFIXES = {
    **{"bert": "bert.", "distilbert": "distilbert."},
    **{"roberta": "roberta.", "xlm-roberta": "roberta."},
}
_SETTINGS = {  # our name: BERT's and DistilBERT's
    "activation": ("hidden_act", "activation"),
    "hidden_size": ("hidden_size", "dim"),
    "num_layers": ("num_hidden_layers", "n_layers"),
    "num_heads": ("num_attention_heads", "n_heads"),
    "intermediate_size": ("intermediate_size", "hidden_dim"),
    "vocab_size": ("vocab_size", "vocab_size"),
    "max_positions": ("max_position_embeddings", "max_position_embeddings"),
}
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


class Encoder(NamedTuple):
    """A model folder's encoder."""

    config: ModelConfig
    tensors: Mapping[str, Array]
    model_type: str
    padding: int | None  # the id from which RoBERTa's positions are counted


def is_model(folder: Path) -> bool:
    """Tell whether ``folder`` holds an encoder's configuration and weights."""
    return has_file(folder, "config.json") and any(
        has_file(folder, name) for name in (SINGLE, INDEX, PICKLE)
    )


def read_tensors(folder: Path, name: str, largest: int = LARGEST_FILE) -> dict[str, Array]:
    """Return the tensors of floats in a safetensors file of ``folder``."""
    return dict(tensors.read(regular_file(folder, name, largest), largest=largest).arrays)


def read_encoder(folder: Path, values: Mapping[str, Any]) -> Encoder:
    """Read the encoder of ``folder``; ``values`` is its ``config.json``.

    ArtifactError for what is not supported, or weights that contradict the configuration.
    """
    where, kind = folder / "config.json", values.get("model_type")
    if not isinstance(kind, str) or kind not in _PREFIXES:
        listed = ", ".join(_PREFIXES)
        raise ArtifactError(f"{where}: model_type {kind!r} is not supported; supported: {listed}")
    for name, allowed in _ONLY.items():
        value = values.get(name, allowed[0])
        check(value in allowed, f"{where}: {name} {ascii(value)[:80]} is not supported")
    adapters = "adapters (adapter_config.json, PEFT) are not supported; merge them first"
    check(not has_file(folder, "adapter_config.json"), f"{folder}: {adapters}")
    found = _canonical(_weights(folder), kind, folder)
    check(WORDS in found, f"{folder}: its weights have no {WORDS}: are they those of a {kind}?")
    padding, first = None, 0  # the row of the position table that belongs to the first token
    if _PREFIXES[kind] == "roberta.":
        padding = values.get("pad_token_id", 1)
        counts = type(padding) is int and 0 <= padding < 1_000
        check(counts, f"{where}: pad_token_id {ascii(padding)[:40]} gives no first position")
        first = padding + 1
    types = found.get(TYPES)
    config = _configure(values, kind, 0 if types is None else len(types), first, where)
    rows, positions = first + config.max_positions, found.get(POSITIONS)
    if positions is None or positions.ndim != 2 or len(positions) != rows:
        has = "is missing" if positions is None else f"has {len(positions)} rows"
        raise ArtifactError(f"{folder}: {POSITIONS} {has}, config.json says {rows}")
    found[POSITIONS] = positions[first:]
    # A text on its own is of the first type.
    found[TYPES] = np.zeros((1, config.hidden_size), "f4") if types is None else types[:1]
    return Encoder(config, found, kind, padding)


def _configure(
    values: Mapping[str, Any], kind: str, types: int, first: int, where: Path
) -> ModelConfig:
    distilbert = kind == "distilbert"
    names = {ours: theirs[distilbert] for ours, theirs in _SETTINGS.items()}
    name = names.pop("activation")
    activation, listed = values.get(name, "gelu"), ", ".join(sorted(_ACTIVATIONS))
    wrong = f"{name} {ascii(activation)[:40]} is not supported; there are: {listed}"
    check(isinstance(activation, str) and activation in _ACTIVATIONS, f"{where}: {wrong}")
    for name in names.values():
        check(name in values, f"{where}: {name} is missing")
    read = {ours: values[theirs] for ours, theirs in names.items()}
    if type(read["max_positions"]) is int:
        read["max_positions"] -= first
    stated = values.get("type_vocab_size", 0 if distilbert else 2)
    check(types == stated, f"{where}: type_vocab_size {stated!r} is not that of the weights")
    epsilon = values.get("layer_norm_eps", 1e-12)
    inside = type(epsilon) in (int, float) and 0 < epsilon < 1
    check(inside, f"{where}: layer_norm_eps must be a number between 0 and 1")
    read |= {"layer_norm_eps": float(epsilon), "activation": _ACTIVATIONS[activation]}
    try:
        return ModelConfig(normalize=False, **read)
    except ArtifactError as failure:
        raise ArtifactError(f"{where}: {failure}") from None


def _weights(folder: Path) -> dict[str, Array]:
    """Return every tensor of floats in the folder's weights, whole or in shards."""
    if has_file(folder, SINGLE):
        return read_tensors(folder, SINGLE)
    if not has_file(folder, INDEX):
        if has_file(folder, PICKLE):
            return read_state_dict(regular_file(folder, PICKLE, LARGEST_FILE))
        raise ArtifactError(f"{folder} has no weights: no {SINGLE}, {INDEX} or {PICKLE}")
    where, index = folder / INDEX, read_json(folder, INDEX)
    shards: Any = index.get("weight_map") if isinstance(index, dict) else None
    check(isinstance(shards, dict) and shards, f"{where} has no weight_map")
    names = sorted(set(map(str, shards.values())))
    check(len(names) <= 256, f"{where} names {len(names)} files; 256 at most")
    found: dict[str, Array] = {}
    for name in names:
        sound = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.safetensors", name)
        check(sound, f"{where}: {ascii(name)[:100]} is not the name of a shard")
        for tensor, value in read_tensors(folder, name).items():
            shown = repr(tensor[:100])
            check(tensor not in found, f"{where}: tensor {shown} is in two shards")
            check(shards.get(tensor) == name, f"{where} does not say that {name} holds {shown}")
            found[tensor] = value
    return found


def _canonical(stored: Mapping[str, Array], kind: str, folder: Path) -> dict[str, Array]:
    """Return the encoder's tensors under BertModel's names, heads left out."""
    found: dict[str, Array] = {}
    for name, value in stored.items():
        plain = name.removeprefix(_PREFIXES[kind])
        if _HEADS.match(plain):
            continue
        plain = plain.replace(".gamma", ".weight").replace(".beta", ".bias")  # BERT's first names
        if layer := _DISTILBERT_LAYER.fullmatch(plain):
            index, part, what = layer.groups()
            expected = kind == "distilbert" and part in _DISTILBERT_PARTS
            check(expected, f"{folder}: unexpected tensor {ascii(name)[:100]}")
            plain = f"encoder.layer.{int(index)}.{_DISTILBERT_PARTS[part]}.{what}"
        check(plain not in found, f"{folder}: tensor {ascii(plain)[:100]} occurs twice")
        found[plain] = value
    return found


def to_json(config: ModelConfig, padding: int) -> dict[str, Any]:
    """Return ``config.json`` as BertModel reads it; ``padding`` is the id that fills a batch."""
    activations = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        **{bert: getattr(config, ours) for ours, (bert, _) in _SETTINGS.items()},
        "architectures": ["BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",  # weights are stored in 16 bits but computed in 32
        "hidden_act": activations[config.activation],
        "hidden_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": padding,
        "type_vocab_size": 1,
    }


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return the tensors of the state dict in ``path``, float32, by name.

    It is the whole file, or stands under one of `WRAPPERS` among other things. Tensors of whole
    numbers, such as ``position_ids``, are left out. ArtifactError for any other file.

    A file that `torch.save` wrote is a zip archive of a pickle and of the tensors' bytes. PyTorch's
    ``weights_only`` unpickler calls nothing but what makes tensors; the bytes are mapped, so that
    no tensor can claim more of them than there are.
    """
    _check_archive(path)
    torch = require("torch", "torch")
    found: Any = _unpickled(torch, path)
    if isinstance(found, Mapping):
        inside = [name for name in WRAPPERS if isinstance(found.get(name), Mapping)]
        check(len(inside) < 2, f"{path} holds several state dicts: {', '.join(inside)}")
        found = found[inside[0]] if inside else found
    none = f"{path} holds no state dict, alone or as {', '.join(WRAPPERS)}"
    check(isinstance(found, Mapping) and found, none)
    named: dict[str, Tensor] = {}
    for name, value in found.items():
        sound = isinstance(name, str) and isinstance(value, torch.Tensor)
        check(sound, f"{path}: {ascii(name)[:100]} in its state dict is not a named tensor")
        plain = ".".join(part for part in name.split(".") if part not in WRAPPING)
        check(plain not in named, f"{path}: tensor {ascii(plain)[:100]} occurs twice")
        named[plain] = value
    # A view may repeat a few bytes without end; copied, it would fill the memory.
    total = sum(it.numel() * it.element_size() for it in named.values())
    check(total <= path.stat().st_size, f"{path}: its tensors are larger than the file")
    arrays = {}
    whole = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
    for name, value in named.items():
        if value.dtype in whole:
            continue
        try:
            if not value.is_floating_point() or value.is_quantized or value.device.type != "cpu":
                raise TypeError(value.dtype)
            # Copied: the file may change or go.
            arrays[name] = np.array(value.detach().float().numpy(), np.float32)
        except Exception:  # also sparse, nested and other layouts
            shown = ascii(name)[:100]
            raise ArtifactError(f"{path}: tensor {shown} is no array of floats") from None
    return arrays


def _check_archive(path: Path) -> None:
    """Refuse what is no plain, whole archive of bounded contents, before PyTorch sees it."""
    wrong = ""
    try:
        status = path.stat()
        plain = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE
        check(plain, f"{path} is not a plain file of at most {LARGEST_FILE >> 30} GiB")
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


def _unpickled(torch: Any, path: Path) -> object:
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
