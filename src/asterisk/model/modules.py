"""What a sentence-transformers folder says beside its encoder: pooling, maps, length, prompts.

Read are ``modules.json`` and each module's configuration, under the old names of their keys and
classes and those of version 6; a plain Hugging Face folder gets what sentence-transformers gives
it, the mean over tokens. What is not supported is refused by name, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_json, read_object, regular_file, subfolder
from asterisk.model.config import POOLINGS, Dense, ModelConfig

Array = npt.NDArray[np.float32]
MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LARGEST_DENSE = 1 << 30
LARGEST_PROMPT = 1 << 16  # characters
MOST_PROMPTS = 100
# Of the Transformer module, by sentence-transformers' own order.
_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
_LISTED_KINDS = f"{', '.join(_KINDS[:-1])} and {_KINDS[-1]}"
_SENTENCE = ("sentence_embedding", None)
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_UNSET = (
    *("model_args", "tokenizer_args", "config_args"),
    *("model_kwargs", "processor_kwargs", "config_kwargs", "processing_kwargs"),
    *("unpad_inputs", "query_length", "document_length", "query_expansion"),
    "tokenizer_name_or_path",
)
_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",  # sentence-transformers' default
}
# The two that sentence-transformers always has, empty unless the folder says more.
PROMPTS: Mapping[str, str] = {"query": "", "document": ""}
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True, slots=True)
class Modules:
    """What follows the encoder, and how texts are given to it.

    ``transformer`` is the encoder's folder; ``weights`` are the maps' tensors, ``dense.N.weight``
    [out, in] and ``dense.N.bias``; ``max_seq_length`` None where the tokenizer's configuration
    says it; ``prompts`` as sentence-transformers holds them once the model is loaded.
    """

    transformer: Path
    pooling: str = "mean"
    dense: tuple[Dense, ...] = ()
    weights: Mapping[str, Array] = field(default_factory=dict)
    normalize: bool = False
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None


def read_modules(folder: Path) -> Modules:
    """Read ``folder``; ArtifactError for anything that is damaged or not supported."""
    if has_file(folder, "router_config.json"):
        raise ArtifactError(
            f"{folder}: the module Router is not supported; there are {_LISTED_KINDS}"
        )
    path = folder / MODULES
    if not has_file(folder, MODULES):
        # sentence-transformers reads no other configuration of its own without modules.json.
        return Modules(folder, prompts=PROMPTS)
    listed = _listed(folder)
    kinds = [kind for kind, _ in listed]
    if kinds[:1] != ["Transformer"]:
        raise ArtifactError(f"{path}: the first module is not a Transformer")
    if kinds.count("Transformer") != 1 or kinds.count("Pooling") != 1 or kinds[1] != "Pooling":
        raise ArtifactError(
            f"{path}: {', '.join(kinds)}: one Transformer and then one Pooling are expected"
        )
    pooling, width = _pooling(listed[1][1])
    dense: list[Dense] = []
    weights: dict[str, Array] = {}
    normalize = False
    for kind, module in listed[2:]:
        if normalize:
            raise ArtifactError(f"{path}: {kind} after Normalize is not supported")
        if kind == "Normalize":
            normalize = True
            allowed = {"module_input_name": _SENTENCE, "module_output_name": _SENTENCE}
            _only(read_object(module, "config.json"), module / "config.json", allowed)
            continue
        one, inputs, found = _dense(module)
        if inputs != width:
            raise ArtifactError(f"{module}: in_features {inputs} follows {width} features")
        weights |= {f"dense.{len(dense)}.{name}": value for name, value in found.items()}
        dense.append(one)
        width = one.out_features
    transformer = listed[0][1]
    length, lowercase = _transformer(transformer)
    prompts = _settings(folder)
    return Modules(
        transformer, pooling, tuple(dense), weights, normalize, length, lowercase, *prompts
    )


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """Return each module's class and folder, in order."""
    where = folder / MODULES
    values = read_json(folder, MODULES)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ArtifactError(f"{where} is not a list of modules")
    found = []
    for value in values:
        kind, path = value.get("type"), value.get("path")
        package, _, name = str(kind).rpartition(".")
        if package.split(".")[0] != "sentence_transformers" or name not in _KINDS:
            raise ArtifactError(
                f"{where}: the module {ascii(kind)[:100]} is not supported; "
                f"there are {_LISTED_KINDS}"
            )
        if not isinstance(path, str) or (path and not _PATH.fullmatch(path)):
            raise ArtifactError(f"{where}: {ascii(path)[:100]} is no folder of a module")
        if value.get("kwargs"):
            raise ArtifactError(f"{where}: kwargs of {name} are not supported")
        found.append((name, subfolder(folder, path) if path else folder))
    return found


def _pooling(module: Path) -> tuple[str, int]:
    """Return the pooling's name and the features that it expects."""
    values = read_object(module, "config.json")
    where = module / "config.json"
    if not values:
        raise ArtifactError(f"{where} is missing")
    widths = ("embedding_dimension", "word_embedding_dimension")
    extra = set(values) - {*_LEGACY_POOLING, *widths, "pooling_mode", "include_prompt"}
    if extra:
        raise ArtifactError(f"{where}: {ascii(min(extra))[:100]} is not supported")
    modes: Any = values.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if values.get(key)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in POOLINGS:
        found = ", ".join(map(str, modes)) if isinstance(modes, list) else ascii(modes)
        raise ArtifactError(
            f"{where}: pooling by {found[:100]} is not supported; there are, one at a time: "
            + ", ".join(POOLINGS)
        )
    if values.get("include_prompt", True) is not True:
        raise ArtifactError(f"{where}: include_prompt false is not supported")
    width = values.get(widths[0], values.get(widths[1]))
    if type(width) is not int:
        raise ArtifactError(f"{where}: word_embedding_dimension is missing")
    return modes[0], width


def _dense(module: Path) -> tuple[Dense, int, dict[str, Array]]:
    """Return a map, the features that it expects, and its tensors."""
    where = module / "config.json"
    values = read_object(module, "config.json")
    allowed = {
        "module_input_name": _SENTENCE,
        "module_output_name": _SENTENCE,
        "use_residual": (False, None),
    }
    _only(values, where, allowed, {"in_features", "out_features", "bias", "activation_function"})
    inputs = values.get("in_features")
    if type(inputs) is not int or "out_features" not in values:
        raise ArtifactError(f"{where}: in_features or out_features is missing")
    named = values.get("activation_function", _ACTIVATIONS["tanh"])
    package, _, activation = str(named).rpartition(".")
    if not package.startswith("torch.nn") or activation not in ("Identity", "Tanh"):
        raise ArtifactError(
            f"{where}: activation_function {ascii(named)[:100]} is not supported; "
            "there are Identity and Tanh"
        )
    try:
        dense = Dense(values["out_features"], activation.lower(), values.get("bias", True))
    except ArtifactError as failure:
        raise ArtifactError(f"{where}: {failure}") from None
    shapes: dict[str, tuple[int, ...]] = {"weight": (dense.out_features, inputs)}
    if dense.bias:
        shapes["bias"] = (dense.out_features,)
    found: Mapping[str, Array]
    if has_file(module, "model.safetensors"):
        path = regular_file(module, "model.safetensors", LARGEST_DENSE)
        found = tensors.read(path, largest=LARGEST_DENSE).arrays
    elif has_file(module, "pytorch_model.bin"):
        from asterisk.model.huggingface import read_state_dict

        found = read_state_dict(regular_file(module, "pytorch_model.bin", LARGEST_DENSE))
    else:
        raise ArtifactError(f"{module} has no weights: no model.safetensors or pytorch_model.bin")
    if set(found) != {f"linear.{name}" for name in shapes}:
        raise ArtifactError(f"{module}: its weights are not those of config.json")
    weights = {name: found[f"linear.{name}"] for name in shapes}
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ArtifactError(
                f"{module}: {name} has shape {list(weights[name].shape)}, "
                f"config.json says {list(shape)}"
            )
    return dense, inputs, weights


def _transformer(module: Path) -> tuple[int | None, bool]:
    """Return ``max_seq_length``, if it is said here, and whether texts are lower-cased first."""
    read = ((read_object(module, name), module / name) for name in _TRANSFORMER_FILES)
    values, where = next((found for found in read if found[0]), ({}, module))
    allowed: dict[str, tuple[object, ...]] = {
        "transformer_task": ("feature-extraction",),
        "modality_config": (_TEXT,),
        "module_output_name": ("token_embeddings",),
        **dict.fromkeys(_UNSET, (None, {})),
    }
    _only(values, where, allowed, {"max_seq_length", "do_lower_case"})
    length, lowercase = values.get("max_seq_length"), values.get("do_lower_case", False)
    if length is not None and (type(length) is not int or length < 1):
        raise ArtifactError(f"{where}: max_seq_length {ascii(length)[:40]} is not a length")
    if lowercase not in (True, False, None):
        raise ArtifactError(f"{where}: do_lower_case must be true or false")
    return length, bool(lowercase)


def _settings(folder: Path) -> tuple[dict[str, str], str | None, str | None]:
    """Return prompts, the default prompt's name and the similarity function's name."""
    where = folder / SETTINGS
    values = read_object(folder, SETTINGS)
    allowed = {"model_type": ("SentenceTransformer", None), "truncate_dim": (None,)}
    free = {"__version__", "prompts", "default_prompt_name", "similarity_fn_name", "requirements"}
    _only(values, where, allowed, free)
    stored = values.get("prompts") or {}
    default = values.get("default_prompt_name")
    if (
        not isinstance(stored, dict)
        or len(stored) > MOST_PROMPTS
        or not all(
            text is None or (isinstance(text, str) and len(text) <= LARGEST_PROMPT)
            for text in stored.values()
        )
    ):
        raise ArtifactError(f"{where}: prompts are not texts by name")
    prompts = {**PROMPTS, **{name: text or "" for name, text in stored.items()}}
    if default is not None and default not in prompts:
        raise ArtifactError(f"{where}: default_prompt_name {ascii(default)[:100]} is no prompt")
    similarity = values.get("similarity_fn_name")
    if similarity is not None and similarity not in _SIMILARITIES:
        raise ArtifactError(f"{where}: similarity_fn_name {ascii(similarity)[:40]} is unknown")
    return prompts, default, similarity


def _only(
    values: Mapping[str, Any],
    where: Path,
    allowed: Mapping[str, tuple[object, ...]],
    free: Collection[str] = (),
) -> None:
    """Refuse a setting that is neither ``free`` nor has one of its ``allowed`` values."""
    for key, value in values.items():
        if key not in free and (key not in allowed or value not in allowed[key]):
            setting = f"{ascii(key)[1:-1][:60]} {ascii(value)[:60]}"
            raise ArtifactError(f"{where}: {setting} is not supported")


def write_modules(config: ModelConfig, weights: Mapping[str, Array], folder: Path) -> None:
    """Write ``modules.json`` and the modules after the encoder, in the keys all versions read."""
    pooling = {key: True for key, mode in _LEGACY_POOLING.items() if mode == config.pooling}
    modules: list[tuple[str, dict[str, Any]]] = [
        ("Transformer", {}),
        ("Pooling", {"word_embedding_dimension": config.hidden_size, **pooling}),
    ]
    width = config.hidden_size
    for dense in config.dense:
        settings = {
            "in_features": width,
            "out_features": dense.out_features,
            "bias": dense.bias,
            "activation_function": _ACTIVATIONS[dense.activation],
        }
        modules.append(("Dense", settings))
        width = dense.out_features
    if config.normalize:
        modules.append(("Normalize", {}))
    listed = []
    for index, (kind, settings) in enumerate(modules):
        path = f"{index}_{kind}" if index else ""
        listed.append(
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
        )
        if path:
            (folder / path).mkdir()
            write_json(folder / path / "config.json", settings)
        if kind == "Dense":
            prefix = f"dense.{index - 2}."
            linear = {
                f"linear.{name.removeprefix(prefix)}": value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
            tensors.write(folder / path / "model.safetensors", linear, {})
    write_json(folder / MODULES, listed)


def write_json(path: Path, value: object, *, ensure_ascii: bool = True) -> None:
    """Write ``value`` as indented JSON, keys in order."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=ensure_ascii)
    path.write_text(text + "\n", "utf-8")
