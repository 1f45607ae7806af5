"""What a sentence-transformers folder says beside its encoder: pooling, maps, length, prompts.

Read are ``modules.json`` and each module's configuration, under the old names of their keys and
classes and those of version 6; a plain Hugging Face folder gets what sentence-transformers gives
it, the mean over tokens. What is not supported is refused by name, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_json, read_object, regular_file, subfolder
from asterisk.model.config import POOLINGS, Dense, ModelConfig, check
from asterisk.model.huggingface import PICKLE, SINGLE, read_state_dict, read_tensors

Array = npt.NDArray[np.float32]
MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LARGEST_DENSE = 1 << 30
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
_LISTED_KINDS = "there are Transformer, Pooling, Dense and Normalize"
_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",  # sentence-transformers' default
}
# The two that sentence-transformers always has, empty unless the folder says more.
PROMPTS: Mapping[str, str] = {"query": "", "document": ""}
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

# The settings of each module, with their supported values; None means that they are read.
_NORMALIZE: dict[str, tuple[object, ...] | None] = {
    "module_input_name": ("sentence_embedding", None),
    "module_output_name": ("sentence_embedding", None),
}
_DENSE = {
    **_NORMALIZE,
    "use_residual": (False, None),
    **dict.fromkeys(("in_features", "out_features", "bias", "activation_function")),
}
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_UNSET = (
    *("model_args", "tokenizer_args", "config_args", "tokenizer_name_or_path", "unpad_inputs"),
    *("model_kwargs", "processor_kwargs", "config_kwargs", "processing_kwargs"),
    *("query_length", "document_length", "query_expansion"),
)
_TRANSFORMER: dict[str, tuple[object, ...] | None] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": (_TEXT,),
    "module_output_name": ("token_embeddings",),
    **dict.fromkeys(_UNSET, (None, {})),
    **dict.fromkeys(("max_seq_length", "do_lower_case")),
}
_MODEL: dict[str, tuple[object, ...] | None] = {
    "model_type": ("SentenceTransformer", None),
    "truncate_dim": (None,),
    **dict.fromkeys(("prompts", "default_prompt_name", "similarity_fn_name")),
    **dict.fromkeys(("__version__", "requirements")),
}


@dataclass(frozen=True, slots=True)
class Modules:
    """What follows the encoder, and how texts are given to it."""

    transformer: Path  # the encoder's folder
    pooling: str = "mean"
    dense: tuple[Dense, ...] = ()
    weights: Mapping[str, Array] = field(default_factory=dict)  # dense.N.weight [out, in] and .bias
    normalize: bool = False
    max_seq_length: int | None = None  # None where the tokenizer's configuration says it
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=lambda: PROMPTS)
    default_prompt_name: str | None = None
    similarity: str | None = None


def read_modules(folder: Path) -> Modules:
    """Read ``folder``; ArtifactError for anything that is damaged or not supported."""
    router = has_file(folder, "router_config.json")
    check(not router, f"{folder}: the module Router is not supported; {_LISTED_KINDS}")
    if not has_file(folder, MODULES):
        # sentence-transformers reads no other configuration of its own without modules.json.
        return Modules(folder)
    path = folder / MODULES
    listed = _listed(folder)
    kinds = [kind for kind, _ in listed]
    check(kinds[:1] == ["Transformer"], f"{path}: the first module is not a Transformer")
    sound = kinds[1:2] == ["Pooling"] and kinds.count("Transformer") == kinds.count("Pooling") == 1
    expected = "one Transformer and then one Pooling are expected"
    check(sound, f"{path}: {', '.join(kinds)}: {expected}")
    pooling, width = _pooling(listed[1][1])
    dense: list[Dense] = []
    weights: dict[str, Array] = {}
    for index, (kind, module) in enumerate(listed[2:], 2):
        after = kinds[index - 1] == "Normalize"
        check(not after, f"{path}: {kind} after Normalize is not supported")
        if kind == "Normalize":
            _read_settings(module, "config.json", _NORMALIZE)
            continue
        one, inputs, found = _dense(module)
        check(inputs == width, f"{module}: in_features {inputs} follows {width} features")
        weights |= {f"dense.{len(dense)}.{name}": value for name, value in found.items()}
        dense.append(one)
        width = one.out_features
    transformer, normalize = listed[0][1], kinds[-1] == "Normalize"
    length, lowercase = _transformer(transformer)
    options = _settings(folder)
    return Modules(
        transformer, pooling, tuple(dense), weights, normalize, length, lowercase, *options
    )


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """Return each module's class and folder, in order."""
    where, values = folder / MODULES, read_json(folder, MODULES)
    objects = isinstance(values, list) and all(isinstance(value, dict) for value in values)
    check(objects, f"{where} is not a list of modules")
    found = []
    for value in values:
        kind, path = value.get("type"), value.get("path")
        package, _, name = str(kind).rpartition(".")
        supported = package.split(".")[0] == "sentence_transformers" and name in _KINDS
        wrong = f"the module {ascii(kind)[:100]} is not supported; {_LISTED_KINDS}"
        check(supported, f"{where}: {wrong}")
        plain = isinstance(path, str) and (not path or _PATH.fullmatch(path))
        check(plain, f"{where}: {ascii(path)[:100]} is no folder of a module")
        check(not value.get("kwargs"), f"{where}: kwargs of {name} are not supported")
        found.append((name, subfolder(folder, path) if path else folder))
    return found


def _pooling(module: Path) -> tuple[str, int]:
    """Return the pooling's name and the features that it expects."""
    values, where = read_object(module, "config.json"), module / "config.json"
    check(values, f"{where} is missing")
    widths = ("embedding_dimension", "word_embedding_dimension")
    extra = set(values) - {*_LEGACY_POOLING, *widths, "pooling_mode", "include_prompt"}
    check(not extra, f"{where}: {ascii(min(extra, default=''))[:100]} is not supported")
    modes: Any = values.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if values.get(key)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    found = ", ".join(map(str, modes)) if isinstance(modes, list) else ascii(modes)
    wrong = f"pooling by {found[:100]} is not supported; there are, one at a time: "
    supported = isinstance(modes, list) and len(modes) == 1 and modes[0] in POOLINGS
    check(supported, f"{where}: {wrong}{', '.join(POOLINGS)}")
    whole = values.get("include_prompt", True) is True
    check(whole, f"{where}: include_prompt false is not supported")
    width: Any = values.get(widths[0], values.get(widths[1]))
    check(type(width) is int, f"{where}: word_embedding_dimension is missing")
    return modes[0], width


def _dense(module: Path) -> tuple[Dense, int, dict[str, Array]]:
    """Return a map, the features that it expects, and its tensors."""
    where = module / "config.json"
    values = _read_settings(module, "config.json", _DENSE)
    inputs: Any = values.get("in_features")
    sized = type(inputs) is int and "out_features" in values
    check(sized, f"{where}: in_features or out_features is missing")
    named = values.get("activation_function", _ACTIVATIONS["tanh"])
    package, _, activation = str(named).rpartition(".")
    supported = package.startswith("torch.nn") and activation in ("Identity", "Tanh")
    wrong = f"activation_function {ascii(named)[:100]} is not supported"
    check(supported, f"{where}: {wrong}; there are Identity and Tanh")
    try:
        dense = Dense(values["out_features"], activation.lower(), values.get("bias", True))
    except ArtifactError as failure:
        raise ArtifactError(f"{where}: {failure}") from None
    shapes: dict[str, tuple[int, ...]] = {"weight": (dense.out_features, inputs)}
    if dense.bias:
        shapes["bias"] = (dense.out_features,)
    if has_file(module, SINGLE):
        found = read_tensors(module, SINGLE, LARGEST_DENSE)
    elif has_file(module, PICKLE):
        found = read_state_dict(regular_file(module, PICKLE, LARGEST_DENSE))
    else:
        raise ArtifactError(f"{module} has no weights: no {SINGLE} or {PICKLE}")
    expected = {f"linear.{name}" for name in shapes}
    check(set(found) == expected, f"{module}: its weights are not those of config.json")
    weights = {name: found[f"linear.{name}"] for name in shapes}
    for name, shape in shapes.items():
        has = list(weights[name].shape)
        wrong = f"{name} has shape {has}, config.json says {list(shape)}"
        check(has == list(shape), f"{module}: {wrong}")
    return dense, inputs, weights


def _transformer(module: Path) -> tuple[int | None, bool]:
    """Return ``max_seq_length``, if it is stated, and whether texts are lower-cased first."""
    stated = (name for name in _TRANSFORMER_FILES if read_object(module, name))
    name = next(stated, _TRANSFORMER_FILES[0])
    where = module / name
    values = _read_settings(module, name, _TRANSFORMER)
    length, lowercase = values.get("max_seq_length"), values.get("do_lower_case", False)
    counts = length is None or (type(length) is int and length > 0)
    check(counts, f"{where}: max_seq_length {ascii(length)[:40]} is not a length")
    check(lowercase in (True, False, None), f"{where}: do_lower_case must be true or false")
    return length, bool(lowercase)


def _settings(folder: Path) -> tuple[dict[str, str], str | None, str | None]:
    """Return prompts, the default prompt's name and the similarity function's name."""
    where = folder / SETTINGS
    values = _read_settings(folder, SETTINGS, _MODEL)
    stored = values.get("prompts") or {}
    sound = isinstance(stored, dict) and len(stored) <= 100
    sound = sound and all(
        text is None or (isinstance(text, str) and len(text) <= 1 << 16) for text in stored.values()
    )
    check(sound, f"{where}: prompts are not texts by name")
    prompts = {**PROMPTS, **{name: text or "" for name, text in stored.items()}}
    default, similarity = values.get("default_prompt_name"), values.get("similarity_fn_name")
    exists = default is None or default in prompts
    check(exists, f"{where}: default_prompt_name {ascii(default)[:100]} is no prompt")
    exists = similarity is None or similarity in _SIMILARITIES
    check(exists, f"{where}: similarity_fn_name {ascii(similarity)[:40]} is unknown")
    return prompts, default, similarity


def _read_settings(
    folder: Path, name: str, supported: Mapping[str, tuple[object, ...] | None]
) -> dict[str, Any]:
    """Return the settings in a file; ArtifactError for any that is not ``supported``."""
    values = read_object(folder, name)
    for key, value in values.items():
        choices = supported.get(key, ())
        setting = f"{ascii(key)[1:-1][:60]} {ascii(value)[:60]}"
        sound = choices is None or value in choices
        check(sound, f"{folder / name}: {setting} is not supported")
    return values


def write_modules(config: ModelConfig, weights: Mapping[str, Array], folder: Path) -> None:
    """Write ``modules.json`` and the modules after the encoder, in the keys all versions read."""
    width = config.hidden_size
    pooling = {key: True for key, mode in _LEGACY_POOLING.items() if mode == config.pooling}
    modules: list[tuple[str, dict[str, Any]]] = [
        ("Transformer", {}),
        ("Pooling", {"word_embedding_dimension": width, **pooling}),
    ]
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
        type_ = f"sentence_transformers.models.{kind}"
        listed.append({"idx": index, "name": str(index), "path": path, "type": type_})
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
            tensors.write(folder / path / SINGLE, linear, {})
    write_json(folder / MODULES, listed)


def write_json(path: Path, value: object, *, ensure_ascii: bool = True) -> None:
    """Write ``value`` as indented JSON, keys in order."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=ensure_ascii)
    path.write_text(text + "\n", "utf-8")
