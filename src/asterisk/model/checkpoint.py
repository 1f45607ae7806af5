"""A checkpoint: a folder in Hugging Face's layout, read and written without PyTorch."""

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

from asterisk.errors import ArtifactError, MissingExtra
from asterisk.files import replacing_folder
from asterisk.model.config import ModelConfig, from_huggingface, to_huggingface
from asterisk.model.layout import tensor_shapes
from asterisk.tokenizer import BUILTIN, Tokenizer, huggingface

Array = npt.NDArray[np.float32]
LARGEST_FILE = 2 << 30
POOLER = "pooler.dense"


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
        """Return this checkpoint as it will read back: weights rounded to 16 bits."""
        rounded = {name: _half(value).astype("f4") for name, value in self.tensors.items()}
        return replace(self, tensors=rounded)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a checkpoint."""
    return (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()


def load(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder; ArtifactError if it is damaged or of another architecture."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingExtra("safetensors", "torch") from None
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise ArtifactError(f"{folder} is not a checkpoint: no config.json with model.safetensors")
    config = from_huggingface(_json(folder / "config.json"))
    tokenizer = folder / "tokenizer.json"
    if (
        not tokenizer.is_file()
        or _read(tokenizer) != huggingface.to_json(Tokenizer.open(BUILTIN)).encode()
    ):
        raise ArtifactError(f"{tokenizer}: not the GPT-2 tokenizer this version knows")
    try:
        tensors = load_file(_bounded(folder / "model.safetensors"))
        projection = folder / "teacher_projection.safetensors"
        mapped = load_file(_bounded(projection))["weight"] if projection.is_file() else None
    except (SafetensorError, KeyError, ValueError, OSError) as failure:
        raise ArtifactError(f"{folder}: weights cannot be read: {failure}") from None
    card = folder / "README.md"
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors={k: v.astype("f4") for k, v in tensors.items() if not k.startswith(POOLER)},
        teacher_projection=None if mapped is None else mapped.astype("f4"),
        card=card.read_text("utf-8", "replace") if card.is_file() else "",
    )


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write ``checkpoint`` to ``folder`` whole or not at all, weights in 16 bits."""
    from safetensors.numpy import save_file

    config = checkpoint.config
    if config.norm_first or config.projection_size:
        raise ArtifactError("only BERT-shaped encoders have a Hugging Face layout")
    weights = {name: _half(value) for name, value in checkpoint.tensors.items()}
    # BertModel always builds a pooler; zeros keep it from reporting a missing tensor.
    weights[f"{POOLER}.weight"] = np.zeros((config.hidden_size, config.hidden_size), "f2")
    weights[f"{POOLER}.bias"] = np.zeros(config.hidden_size, "f2")
    with replacing_folder(Path(folder), is_checkpoint) as staging:
        save_file(weights, staging / "model.safetensors", metadata={"format": "pt"})
        if checkpoint.teacher_projection is not None:
            # safetensors writes an array's memory as it lies, transposed or not.
            save_file(
                {"weight": checkpoint.teacher_projection.astype("f4", order="C")},
                staging / "teacher_projection.safetensors",
            )
        (staging / "tokenizer.json").write_text(
            huggingface.to_json(Tokenizer.open(BUILTIN)), "utf-8"
        )
        _write_json(staging / "config.json", to_huggingface(config))
        _write_json(staging / "tokenizer_config.json", huggingface.config(config.max_positions))
        (staging / "README.md").write_text(checkpoint.card, "utf-8")
        _write_sentence_transformers(staging, config)


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


def _half(value: Array) -> npt.NDArray[np.float16]:
    half = value.astype("f2", order="C")
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
