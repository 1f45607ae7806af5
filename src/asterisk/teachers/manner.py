"""How a sentence-transformers folder wants its model used: pooling, length, case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterisk.errors import ArtifactError

POOLINGS = ("mean", "cls")
NO_LENGTH = 1 << 20  # what says "any" in a tokenizer's configuration is larger
ROBERTA_LIKE = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
_OLD = "pooling_mode_"
_OLD_NAMES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}


@dataclass(frozen=True, slots=True)
class Manner:
    """What is read of a model folder.

    ``pooling`` is "mean" or "cls"; ``own_length`` the word pieces that its makers read, None if
    they did not say; ``positions`` how many there can be, None if any number; ``lowercase``,
    whether texts are lower-cased before its tokenizer sees them.
    """

    model: Path
    config: dict[str, Any]
    pooling: str = "mean"
    own_length: int | None = None
    positions: int | None = None
    lowercase: bool = False


def manner(folder: Path) -> Manner:
    """Read ``modules.json`` and what it names; a plain Hugging Face folder is pooled by the mean.

    Vectors are normalised whether or not the folder asks for it: a student is asked for
    directions. ArtifactError for what a token-by-token teacher cannot be.
    """
    if not (folder / "modules.json").is_file():
        return _transformer(folder, "mean")
    pooling, model = "mean", folder
    for module in _json(folder / "modules.json", list):
        kind, path = _module(module, folder)
        if kind == "Transformer":
            model = path
        elif kind == "Pooling":
            pooling = _pooling(path / "config.json")
        elif kind != "Normalize":
            raise ArtifactError(
                f"{folder} has a module {kind}, which token states do not pass: embed the corpus "
                "with it and give the vectors as .npy"
            )
    told = _json_if_any(folder / "config_sentence_transformers.json")
    prompt = told.get("default_prompt_name")
    if prompt and (told.get("prompts") or {}).get(prompt):
        raise ArtifactError(
            f"{folder} puts a prompt before every text, which is not supported: embed the corpus "
            "with it and give the vectors as .npy"
        )
    return _transformer(model, pooling)


def _transformer(folder: Path, pooling: str) -> Manner:
    config = _json(folder / "config.json", dict)
    told = _json_if_any(folder / "sentence_bert_config.json")
    tokenizer = _json_if_any(folder / "tokenizer_config.json")
    length = told.get("max_seq_length") or tokenizer.get("model_max_length")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in ROBERTA_LIKE:
        positions -= 1 + int(config.get("pad_token_id") or 0)  # its positions start behind padding
    return Manner(
        folder,
        config,
        pooling,
        length if isinstance(length, int) and 0 < length < NO_LENGTH else None,
        positions if isinstance(positions, int) and positions > 0 else None,
        bool(told.get("do_lower_case")),
    )


def _module(module: Any, folder: Path) -> tuple[str, Path]:
    if not isinstance(module, dict):
        raise ArtifactError(f"{folder / 'modules.json'} does not describe modules")
    inner = Path(str(module.get("path", "")))
    if inner.is_absolute() or ".." in inner.parts:
        raise ArtifactError(f"{folder / 'modules.json'} leaves its folder")
    return str(module.get("type", "")).rsplit(".", 1)[-1], folder / inner


def _pooling(path: Path) -> str:
    told = _json(path, dict)
    mode = told.get("pooling_mode")
    if mode is None:
        modes = [key.removeprefix(_OLD) for key, on in told.items() if key.startswith(_OLD) and on]
        mode = "+".join(_OLD_NAMES.get(name, name) for name in modes)
    if mode not in POOLINGS:
        raise ArtifactError(f"{path}: pooling {mode!r} is none of: {', '.join(POOLINGS)}")
    return str(mode)


def _json_if_any(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = _json(path, dict) if path.is_file() else {}
    return found


def _json(path: Path, kind: type) -> Any:
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ArtifactError(f"{path} is missing or not JSON") from None
    if not isinstance(told, kind):
        raise ArtifactError(f"{path} does not describe a model")
    return told
