"""A checkpoint: a folder of weights and tokenizer, read and written by numpy alone.

A BERT-shaped encoder lives in Hugging Face's layout, weights in 16 bits: `transformers` and
sentence-transformers open it. Any other has a layout of its own, which they refuse: a
``config.json`` with a ``model_type`` of ours, weights in 32 bits under names of ours, no modules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.errors import ArtifactError
from asterisk.files import replacing_folder
from asterisk.model.config import MODEL_TYPE, ModelConfig, from_json, to_json
from asterisk.model.layout import tensor_shapes
from asterisk.tensors import Half
from asterisk.tensors import read as read_tensors
from asterisk.tensors import write as write_tensors
from asterisk.tokenizer import BUILTIN, gpt2, huggingface

Array = npt.NDArray[np.float32]
LARGEST_FILE = 2 << 30
POOLER = "pooler.dense"
OWN = f"{MODEL_TYPE}."  # before each tensor's name where BertModel must not find it
PROJECTION = "teacher_projection.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of an encoder and what belongs to them.

    ``tensors`` are float32, named and shaped as `asterisk.model.layout.tensor_shapes` says.
    ``teacher_projection`` is the fixed map from the teacher's space to this one, float32
    [embedding_size, teacher_size], if the checkpoint was distilled; ``card`` its README.
    """

    name: str
    config: ModelConfig
    tensors: Mapping[str, Array]
    teacher_projection: Array | None = None
    card: str = ""

    def __post_init__(self) -> None:
        shapes = tensor_shapes(self.config)
        for name, shape in shapes.items():
            found = self.tensors.get(name)
            if found is None or found.shape != shape:
                what = "is missing" if found is None else f"has shape {list(found.shape)}"
                raise ArtifactError(f"checkpoint: tensor {name} {what}, expected {list(shape)}")
            if not np.isfinite(found).all():
                raise ArtifactError(f"checkpoint: tensor {name} holds values that are not finite")
        extra = set(self.tensors) - set(shapes)
        if extra:
            raise ArtifactError(f"checkpoint: unexpected tensor {min(extra)}")

    @cached_property
    def fingerprint(self) -> str:
        """Name the embedding space: sha256 over configuration, tokenizer and every weight."""
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        digest.update(hashlib.sha256(BUILTIN.read_bytes()).digest())
        for name in tensor_shapes(self.config):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.tensors[name], "<f4").data)
        return digest.hexdigest()

    def stored(self) -> Checkpoint:
        """Return this checkpoint as it will read back: BERT's weights rounded to 16 bits."""
        if not self.config.bert_shaped:
            return self
        rounded = {name: _half(value).astype("f4") for name, value in self.tensors.items()}
        return replace(self, tensors=rounded)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a checkpoint."""
    return (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()


def load(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder; ArtifactError if it is damaged or of another architecture."""
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise ArtifactError(f"{folder} is not a checkpoint: no config.json with model.safetensors")
    config = from_json(_json(folder / "config.json"))
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file() or _read(tokenizer) != huggingface.to_json(gpt2()).encode():
        raise ArtifactError(f"{tokenizer}: not the GPT-2 tokenizer this version knows")
    projection, card = folder / PROJECTION, folder / "README.md"
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors=_weights(folder / "model.safetensors", config),
        teacher_projection=_teacher_projection(projection) if projection.is_file() else None,
        card=card.read_text("utf-8", "replace") if card.is_file() else "",
    )


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write ``checkpoint`` to ``folder`` whole or not at all, in the layout of its shape.

    A checkpoint there is replaced, but one of Hugging Face's layout by none of the other.
    """
    config = checkpoint.config
    with replacing_folder(
        Path(folder), is_checkpoint if config.bert_shaped else _is_own
    ) as staging:
        write_tensors(staging / "model.safetensors", _named(checkpoint), {"format": "pt"})
        if checkpoint.teacher_projection is not None:
            write_tensors(staging / PROJECTION, {"weight": checkpoint.teacher_projection}, {})
        (staging / "tokenizer.json").write_text(huggingface.to_json(gpt2()), "utf-8")
        _write_json(staging / "config.json", to_json(config))
        (staging / "README.md").write_text(checkpoint.card, "utf-8")
        if config.bert_shaped:
            _write_json(staging / "tokenizer_config.json", huggingface.config(config.max_positions))
            _write_sentence_transformers(staging, config)


def _is_own(folder: Path) -> bool:
    """Tell whether ``folder`` is a checkpoint that only this package opens."""
    return is_checkpoint(folder) and _json(folder / "config.json").get("model_type") == MODEL_TYPE


def _weights(path: Path, config: ModelConfig) -> dict[str, Array]:
    """Return the file's tensors under the names of `tensor_shapes`."""
    found = read_tensors(path, largest=LARGEST_FILE).arrays
    if config.bert_shaped:
        return {name: value for name, value in found.items() if not name.startswith(POOLER)}
    strangers = [name for name in found if not name.startswith(OWN)]
    if strangers:
        raise ArtifactError(f"{path}: unexpected tensor {min(strangers)[:100]!r}")
    return {name.removeprefix(OWN): value for name, value in found.items()}


def _teacher_projection(path: Path) -> Array:
    found = read_tensors(path, largest=LARGEST_FILE).arrays
    if set(found) != {"weight"}:
        raise ArtifactError(f"{path} does not hold one matrix named 'weight'")
    return found["weight"]


def _named(checkpoint: Checkpoint) -> dict[str, Array | Half]:
    """Return the tensors as their file names and stores them."""
    if not checkpoint.config.bert_shaped:
        return {f"{OWN}{name}": value for name, value in checkpoint.tensors.items()}
    hidden = checkpoint.config.hidden_size
    return {
        **{name: _half(value) for name, value in checkpoint.tensors.items()},
        # BertModel always builds a pooler; zeros keep it from reporting a missing tensor.
        f"{POOLER}.weight": np.zeros((hidden, hidden), "f2"),
        f"{POOLER}.bias": np.zeros(hidden, "f2"),
    }


def _write_sentence_transformers(folder: Path, config: ModelConfig) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": "" if index == 0 else f"{index}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    _write_json(folder / "modules.json", modules)
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": config.max_positions, "do_lower_case": False},
    )
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True},
    )
    (folder / "2_Normalize").mkdir()
    _write_json(folder / "2_Normalize" / "config.json", {})


def _half(value: Array) -> Half:
    half: Half = value.astype("f2")
    if not np.isfinite(half).all():
        raise ArtifactError("checkpoint: a weight does not fit into 16 bits")
    return half


def _bounded(path: Path) -> Path:
    if path.stat().st_size > LARGEST_FILE:
        raise ArtifactError(f"{path} is larger than {LARGEST_FILE >> 30} GiB")
    return path


def _read(path: Path) -> bytes:
    return _bounded(path).read_bytes()


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} is not JSON") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} is not a JSON object")
    return values


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
