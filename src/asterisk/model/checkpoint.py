"""A checkpoint: a folder with an encoder, its tokenizer and what makes a vector of a text.

Any sentence encoder of BERT's family, in sentence-transformers' or plain Hugging Face layout, whole
or in shards, is read by numpy alone (``pytorch_model.bin`` by PyTorch). An encoder that no library
of theirs has, the original project's, lives in a layout of our own: ``config.json`` with a
``model_type`` of ours, weights in 32 bits under names of ours, no modules.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common import tensors as safetensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import (
    LARGEST_FILE,
    has_file,
    read_bytes,
    read_object,
    regular_file,
    replacing_folder,
)
from asterisk.common.tensors import Half
from asterisk.model import huggingface, modules
from asterisk.model.config import FINGERPRINT, ModelConfig
from asterisk.model.layout import tensor_shapes
from asterisk.tokenizer.folder import gpt2_source, read_tokenizer
from asterisk.tokenizer.source import TokenizerSource

Array = npt.NDArray[np.float32]
LARGEST_CARD = 16 << 20
MODEL_TYPE = "asterisk"  # of encoders that are no BertModel
OWN = f"{MODEL_TYPE}."  # before each tensor's name where BertModel must not find it
PROJECTION = "teacher_projection.safetensors"
SPACE = "embedding_space.json"
LICENSE = "LICENSE"
MOST_SPACES = 100
# Rows of a token table beyond the vocabulary: XLM-R's has 35, others round up to a multiple of 8.
MOST_SPARE_ROWS = 1_024
_EXACT_TYPES = {"wordpiece", "byte_level_bpe"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights of an encoder and what belongs to them.

    ``tensors`` are float32, named and shaped as `asterisk.model.layout.tensor_shapes` says.
    ``prompts`` are texts by name, as sentence-transformers holds them, ``similarity`` the function
    that the folder asks for. ``compatible_with`` are fingerprints of other embedding spaces whose
    vectors may be compared with these. ``teacher_projection`` is the fixed map from the teacher's
    space to this one, float32 [embedding_size, teacher_size], if the checkpoint was distilled;
    ``card`` its README and ``licence`` its LICENSE; ``folder`` is where it was read, ``source`` its
    name and revision on a hub.
    """

    name: str
    config: ModelConfig
    tensors: Mapping[str, Array]
    tokenizer: TokenizerSource = field(default_factory=gpt2_source)
    prompts: Mapping[str, str] = field(default_factory=lambda: modules.PROMPTS)
    default_prompt_name: str | None = None
    similarity: str | None = None
    compatible_with: tuple[str, ...] = ()
    teacher_projection: Array | None = None
    card: str = ""
    licence: str = ""
    folder: Path | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        shapes, where = tensor_shapes(self.config), self.folder or "checkpoint"
        for name, shape in shapes.items():
            found = self.tensors.get(name)
            if found is None or found.shape != shape:
                what = (
                    "is missing or not of floats"
                    if found is None
                    else f"has shape {list(found.shape)}"
                )
                raise ArtifactError(f"{where}: tensor {name} {what}, expected {list(shape)}")
            if not np.isfinite(found).all():
                raise ArtifactError(f"{where}: tensor {name} holds values that are not finite")
        extra = set(self.tensors) - set(shapes)
        if extra:
            raise ArtifactError(f"{where}: unexpected tensor {ascii(min(extra))[:100]}")

    @cached_property
    def fingerprint(self) -> str:
        """Name the embedding space: sha256 over shape, tokenizer and every weight.

        Weights count as float16, so that a model's float32 and float16 forms have one name. What
        changes no direction of a vector does not count: length, normalisation, prompts.
        """
        shape = self.config.to_dict()
        for name in ("max_seq_length", "normalize"):
            del shape[name]
        digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
        digest.update(self.tokenizer.identity().encode())
        for name in tensor_shapes(self.config):
            digest.update(name.encode())
            with np.errstate(over="ignore"):
                digest.update(np.ascontiguousarray(self.tensors[name], "<f2").data)
        return digest.hexdigest()

    def stored(self) -> Checkpoint:
        """Return this checkpoint as it will read back: BERT's weights rounded to 16 bits."""
        if not self.config.bert_shaped:
            return self
        rounded = {name: _half(value).astype("f4") for name, value in self.tensors.items()}
        return replace(self, tensors=rounded)


def is_checkpoint(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a checkpoint."""
    return huggingface.is_model(folder) or has_file(folder, modules.MODULES)


def load(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder.

    ArtifactError if it is damaged, contradicts itself, or holds what is not done here: another
    architecture, module, pooling or tokenizer.
    """
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise ArtifactError(
            f"{folder} is not a checkpoint: no config.json with {huggingface.SINGLE}, "
            f"{huggingface.INDEX} or {huggingface.PICKLE}"
        )
    values = read_object(folder, "config.json")
    if values.get("model_type") == MODEL_TYPE:
        return _load_own(folder, values)
    said = modules.read_modules(folder)
    place = said.transformer
    if not has_file(place, "config.json"):
        raise ArtifactError(f"{place} has no config.json")
    if place != folder:
        values = read_object(place, "config.json")
    encoder = huggingface.read_encoder(place, values)
    tokenizer = read_tokenizer(place, encoder.model_type, lowercase=said.lowercase)
    _check_vocabulary(tokenizer, encoder.config.vocab_size, folder)
    around = [tokenizer.special.get(name) for name in ("bos", "cls", "sep", "eos")]
    if encoder.padding is not None and encoder.padding in around:
        raise ArtifactError(
            f"{place / 'config.json'}: pad_token_id {encoder.padding}, from which positions are "
            "counted, is a token around every text"
        )
    most = encoder.config.max_positions
    length = said.max_seq_length
    if length is None:  # as sentence-transformers: the tokenizer's, if the positions allow it
        told = read_object(place, "tokenizer_config.json").get("model_max_length", most)
        if not isinstance(told, int | float) or isinstance(told, bool) or not told >= 1:
            raise ArtifactError(f"{place / 'tokenizer_config.json'}: model_max_length is no length")
        length = int(min(told, most))
    if length < max(1, tokenizer.specials):
        raise ArtifactError(
            f"{folder}: {length} tokens leave no room for {tokenizer.specials} special ones"
        )
    config = replace(
        encoder.config,
        pooling=said.pooling,
        dense=said.dense,
        normalize=said.normalize,
        max_seq_length=length,
    )
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors={**encoder.tensors, **said.weights},
        tokenizer=tokenizer,
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
        similarity=said.similarity,
        **_beside(folder),
    )


def _check_vocabulary(tokenizer: TokenizerSource, rows: int, folder: Path) -> None:
    spare = rows - tokenizer.vocab_size
    padded = spare == 0 or rows % 8 == 0 or tokenizer.kind not in _EXACT_TYPES
    if not (0 <= spare <= MOST_SPARE_ROWS and padded):
        raise ArtifactError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, "
            f"the model's table {rows:,} rows"
        )


def _load_own(folder: Path, values: dict[str, Any]) -> Checkpoint:
    values = {name: value for name, value in values.items() if name != "model_type"}
    config = ModelConfig.from_dict(values)
    path = regular_file(folder, huggingface.SINGLE, LARGEST_FILE)
    found = safetensors.read(path, largest=LARGEST_FILE).arrays
    strangers = [name for name in found if not name.startswith(OWN)]
    if strangers:
        raise ArtifactError(f"{path}: unexpected tensor {min(strangers)[:100]!r}")
    tokenizer = read_tokenizer(folder, MODEL_TYPE)
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors={name.removeprefix(OWN): value for name, value in found.items()},
        tokenizer=tokenizer,
        **_beside(folder),
    )


def _beside(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint of ours may carry beside the model."""
    projection = None
    if has_file(folder, PROJECTION):
        path = regular_file(folder, PROJECTION, LARGEST_FILE)
        found = safetensors.read(path, largest=LARGEST_FILE).arrays
        if set(found) != {"weight"}:
            raise ArtifactError(f"{path} does not hold one matrix named 'weight'")
        projection = found["weight"]
    spaces = read_object(folder, SPACE).get("compatible_with", [])
    if (
        not isinstance(spaces, list)
        or len(spaces) > MOST_SPACES
        or not all(isinstance(space, str) and FINGERPRINT.fullmatch(space) for space in spaces)
    ):
        raise ArtifactError(f"{folder / SPACE}: compatible_with is no list of fingerprints")
    told = {
        field: read_bytes(folder, name, LARGEST_CARD).decode("utf-8", "replace")
        for field, name in (("card", "README.md"), ("licence", LICENSE))
        if has_file(folder, name)
    }
    return {
        "teacher_projection": projection,
        "compatible_with": tuple(spaces),
        **told,
        "folder": Path(os.path.abspath(folder)),  # noqa: PTH100 - links stay as they are named
    }


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write ``checkpoint`` to ``folder`` whole or not at all, in the layout of its shape.

    A checkpoint there is replaced, but one of Hugging Face's layout by none of the other.
    """
    config = checkpoint.config
    with replacing_folder(
        Path(folder), is_checkpoint if config.bert_shaped else _is_own
    ) as staging:
        if checkpoint.teacher_projection is not None:
            safetensors.write(staging / PROJECTION, {"weight": checkpoint.teacher_projection}, {})
        if checkpoint.compatible_with:
            _write_json(staging / SPACE, {"compatible_with": list(checkpoint.compatible_with)})
        (staging / "README.md").write_text(checkpoint.card, "utf-8")
        if checkpoint.licence:
            (staging / LICENSE).write_text(checkpoint.licence, "utf-8")
        (staging / "tokenizer.json").write_text(checkpoint.tokenizer.to_json(), "utf-8")
        if config.bert_shaped:
            _save_sentence_transformers(checkpoint, staging)
        else:
            named = {f"{OWN}{name}": value for name, value in checkpoint.tensors.items()}
            safetensors.write(staging / huggingface.SINGLE, named, {"format": "pt"})
            _write_json(staging / "config.json", {"model_type": MODEL_TYPE, **config.to_dict()})


def _is_own(folder: Path) -> bool:
    """Tell whether ``folder`` is a checkpoint that only this package opens."""
    if not is_checkpoint(folder):
        return False
    return read_object(folder, "config.json").get("model_type") == MODEL_TYPE


def _save_sentence_transformers(checkpoint: Checkpoint, folder: Path) -> None:
    config, hidden = checkpoint.config, checkpoint.config.hidden_size
    weights: dict[str, Array | Half] = {
        name: _half(value)
        for name, value in checkpoint.tensors.items()
        if not name.startswith("dense.")
    }
    # BertModel always builds a pooler; zeros keep it from reporting a missing tensor.
    weights["pooler.dense.weight"] = np.zeros((hidden, hidden), "f2")
    weights["pooler.dense.bias"] = np.zeros(hidden, "f2")
    safetensors.write(folder / huggingface.SINGLE, weights, {"format": "pt"})
    settings = huggingface.to_json(config, checkpoint.tokenizer.special.get("pad", 0))
    _write_json(folder / "config.json", settings)
    length = config.max_seq_length
    _write_json(folder / "tokenizer_config.json", checkpoint.tokenizer.settings(length))
    _write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False}
    )
    if any(checkpoint.prompts.values()) or checkpoint.default_prompt_name:
        _write_json(
            folder / modules.SETTINGS,
            {
                "prompts": dict(checkpoint.prompts),
                "default_prompt_name": checkpoint.default_prompt_name,
            },
        )
    modules.write_modules(config, checkpoint.tensors, folder)


def _half(value: Array) -> Half:
    with np.errstate(over="ignore"):
        half: Half = value.astype("f2")
    if not np.isfinite(half).all():
        raise ArtifactError("checkpoint: a weight does not fit into 16 bits")
    return half


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
