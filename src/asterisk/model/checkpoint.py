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
from asterisk.model.config import FINGERPRINT, ModelConfig, tensor_shapes
from asterisk.model.modules import write_json
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


@dataclass(frozen=True)
class Checkpoint:
    """Weights of an encoder and what belongs to them.

    ``tensors`` are float32, named and shaped as `asterisk.model.config.tensor_shapes` says.
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
                has = "is missing or not of floats"
                if found is not None:
                    has = f"has shape {list(found.shape)}"
                raise ArtifactError(f"{where}: tensor {name} {has}, expected {list(shape)}")
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

    ArtifactError if it is damaged, contradicts itself, or holds what is not supported: another
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
    found = modules.read_modules(folder)
    transformer = found.transformer
    if not has_file(transformer, "config.json"):
        raise ArtifactError(f"{transformer} has no config.json")
    if transformer != folder:
        values = read_object(transformer, "config.json")
    encoder = huggingface.read_encoder(transformer, values)
    tokenizer = read_tokenizer(transformer, encoder.model_type, lowercase=found.lowercase)
    rows = encoder.config.vocab_size
    spare = rows - tokenizer.vocab_size
    padded = spare == 0 or rows % 8 == 0 or tokenizer.kind == "library"
    if not (0 <= spare <= MOST_SPARE_ROWS and padded):
        raise ArtifactError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, "
            f"the model's table {rows:,} rows"
        )
    around = [tokenizer.special.get(name) for name in ("bos", "cls", "sep", "eos")]
    if encoder.padding is not None and encoder.padding in around:
        raise ArtifactError(
            f"{transformer / 'config.json'}: pad_token_id {encoder.padding}, from which positions "
            "are counted, is a token around every text"
        )
    length = found.max_seq_length
    if length is None:  # as sentence-transformers: the tokenizer's, if the positions allow it
        most = encoder.config.max_positions
        settings = read_object(transformer, "tokenizer_config.json")
        stated = settings.get("model_max_length", most)
        if not isinstance(stated, int | float) or isinstance(stated, bool) or not stated >= 1:
            raise ArtifactError(
                f"{transformer / 'tokenizer_config.json'}: model_max_length is not a length"
            )
        length = int(min(stated, most))
    if length < max(1, tokenizer.specials):
        raise ArtifactError(
            f"{folder}: {length} tokens leave no room for {tokenizer.specials} special ones"
        )
    config = replace(
        encoder.config,
        pooling=found.pooling,
        dense=found.dense,
        normalize=found.normalize,
        max_seq_length=length,
    )
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors={**encoder.tensors, **found.weights},
        tokenizer=tokenizer,
        prompts=found.prompts,
        default_prompt_name=found.default_prompt_name,
        similarity=found.similarity,
        **_beside(folder),
    )


def _load_own(folder: Path, values: dict[str, Any]) -> Checkpoint:
    values = {name: value for name, value in values.items() if name != "model_type"}
    config = ModelConfig.from_dict(values)
    path = regular_file(folder, huggingface.SINGLE, LARGEST_FILE)
    found = safetensors.read(path, largest=LARGEST_FILE).arrays
    unexpected = [name for name in found if not name.startswith(OWN)]
    if unexpected:
        raise ArtifactError(f"{path}: unexpected tensor {min(unexpected)[:100]!r}")
    return Checkpoint(
        name=folder.resolve().name,
        config=config,
        tensors={name.removeprefix(OWN): value for name, value in found.items()},
        tokenizer=read_tokenizer(folder, MODEL_TYPE),
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
        raise ArtifactError(f"{folder / SPACE}: compatible_with is not a list of fingerprints")
    texts = {
        field: read_bytes(folder, name, LARGEST_CARD).decode("utf-8", "replace")
        for field, name in (("card", "README.md"), ("licence", LICENSE))
        if has_file(folder, name)
    }
    return {
        "teacher_projection": projection,
        "compatible_with": tuple(spaces),
        **texts,
        "folder": Path(os.path.abspath(folder)),  # noqa: PTH100 - links stay as they are named
    }


def save(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write ``checkpoint`` to ``folder`` whole or not at all, in the layout of its shape.

    An existing checkpoint is replaced, but never one of Hugging Face's layout by one of our own.
    """
    config, hidden = checkpoint.config, checkpoint.config.hidden_size
    replaceable = is_checkpoint if config.bert_shaped else _is_own
    with replacing_folder(Path(folder), replaceable) as staging:
        if checkpoint.teacher_projection is not None:
            safetensors.write(staging / PROJECTION, {"weight": checkpoint.teacher_projection}, {})
        (staging / "README.md").write_text(checkpoint.card, "utf-8")
        weights: dict[str, Array | Half]
        if config.bert_shaped:
            weights = {
                name: _half(value)
                for name, value in checkpoint.tensors.items()
                if not name.startswith("dense.")
            }
            # BertModel always builds a pooler; zeros keep it from reporting a missing tensor.
            weights["pooler.dense.weight"] = np.zeros((hidden, hidden), "f2")
            weights["pooler.dense.bias"] = np.zeros(hidden, "f2")
            values = huggingface.to_json(config, checkpoint.tokenizer.special.get("pad", 0))
        else:
            weights = {f"{OWN}{name}": value for name, value in checkpoint.tensors.items()}
            values = {"model_type": MODEL_TYPE, **config.to_dict()}
        safetensors.write(staging / huggingface.SINGLE, weights, {"format": "pt"})
        write_json(staging / "config.json", values)
        settings = None
        if any(checkpoint.prompts.values()) or checkpoint.default_prompt_name:
            settings = {
                "prompts": dict(checkpoint.prompts),
                "default_prompt_name": checkpoint.default_prompt_name,
            }
        tokenizer_config = checkpoint.tokenizer.settings(config.max_seq_length)
        write_around(checkpoint, staging, tokenizer_config, settings)


def write_around(
    checkpoint: Checkpoint,
    folder: Path,
    tokenizer_config: Mapping[str, object],
    settings: Mapping[str, object] | None,
    *,
    ensure_ascii: bool = True,
) -> None:
    """Write what stands around an encoder: its tokenizer, licence, compatible spaces and modules.

    ``tokenizer_config`` is the content of ``tokenizer_config.json``, ``settings`` that of
    ``config_sentence_transformers.json``, not written if None. An encoder that is no BERT has
    neither, nor modules.
    """
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.to_json(), "utf-8")
    if checkpoint.licence:
        (folder / LICENSE).write_text(checkpoint.licence, "utf-8")
    if checkpoint.compatible_with:
        write_json(folder / SPACE, {"compatible_with": list(checkpoint.compatible_with)})
    config = checkpoint.config
    if not config.bert_shaped:
        return
    write_json(folder / "tokenizer_config.json", tokenizer_config, ensure_ascii=ensure_ascii)
    limit = {"max_seq_length": config.max_seq_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", limit)
    if settings is not None:
        write_json(folder / modules.SETTINGS, settings, ensure_ascii=ensure_ascii)
    modules.write_modules(config, checkpoint.tensors, folder)


def _is_own(folder: Path) -> bool:
    """Tell whether ``folder`` is a checkpoint that only this package opens."""
    return (
        is_checkpoint(folder) and read_object(folder, "config.json").get("model_type") == MODEL_TYPE
    )


def _half(value: Array) -> Half:
    with np.errstate(over="ignore"):
        half: Half = value.astype("f2")
    if not np.isfinite(half).all():
        raise ArtifactError("checkpoint: a weight does not fit into 16 bits")
    return half
