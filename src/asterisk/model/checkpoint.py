"""A checkpoint: a folder with an encoder, its tokenizer and what makes a vector of a text.

Encoders of BERT's family, in sentence-transformers' or plain Hugging Face layout, are read by numpy
alone (``pytorch_model.bin`` by PyTorch). The original project's encoder, which no library has, is
stored in a layout of our own: ``config.json`` with a ``model_type`` of ours, weights in 32 bits
under names of ours, no modules.
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

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_bytes, read_object, replacing_folder
from asterisk.model import huggingface, modules
from asterisk.model.config import FINGERPRINT, ModelConfig, check, tensor_shapes
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
# Rows of a token table beyond the vocabulary: XLM-R's has 35, others round up to a multiple of 8.
MOST_SPARE_ROWS = 1_024


@dataclass(frozen=True)
class Checkpoint:
    """Weights of an encoder and what belongs to them."""

    name: str
    config: ModelConfig
    tensors: Mapping[str, Array]  # float32, as `asterisk.model.config.tensor_shapes` says
    tokenizer: TokenizerSource = field(default_factory=gpt2_source)
    prompts: Mapping[str, str] = field(default_factory=lambda: modules.PROMPTS)
    default_prompt_name: str | None = None
    similarity: str | None = None  # the function that the folder asks for
    # Fingerprints of other embedding spaces whose vectors may be compared with these.
    compatible_with: tuple[str, ...] = ()
    # From the teacher's space to this one, if distilled: float32 [embedding_size, teacher_size].
    teacher_projection: Array | None = None
    card: str = ""
    licence: str = ""
    folder: Path | None = None  # where it was read
    source: str | None = None  # name and revision on a hub

    def __post_init__(self) -> None:
        shapes, where = tensor_shapes(self.config), self.folder or "checkpoint"
        for name, shape in shapes.items():
            found = self.tensors.get(name)
            if found is None or found.shape != shape:
                has = "is missing or not of floats"
                if found is not None:
                    has = f"has shape {list(found.shape)}"
                raise ArtifactError(f"{where}: tensor {name} {has}, expected {list(shape)}")
            finite = np.isfinite(found).all()
            check(finite, f"{where}: tensor {name} holds values that are not finite")
        for name in sorted(set(self.tensors) - set(shapes)):
            raise ArtifactError(f"{where}: unexpected tensor {ascii(name)[:100]}")

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
    """Read a checkpoint folder; ArtifactError if it is damaged, or holds what is not supported."""
    folder = Path(folder)
    if not is_checkpoint(folder):
        raise ArtifactError(
            f"{folder} is not a checkpoint: no config.json with {huggingface.SINGLE}, "
            f"{huggingface.INDEX} or {huggingface.PICKLE}"
        )
    values = read_object(folder, "config.json")
    read = _read_own if values.get("model_type") == MODEL_TYPE else _read_foreign
    return Checkpoint(name=folder.resolve().name, **read(folder, values), **_read_extras(folder))


def _read_own(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    config = ModelConfig.from_dict({k: v for k, v in values.items() if k != "model_type"})
    found = huggingface.read_tensors(folder, huggingface.SINGLE)
    for name in sorted(found):
        path = folder / huggingface.SINGLE
        check(name.startswith(OWN), f"{path}: unexpected tensor {name[:100]!r}")
    return {
        "config": config,
        "tensors": {name.removeprefix(OWN): value for name, value in found.items()},
        "tokenizer": read_tokenizer(folder, MODEL_TYPE),
    }


def _read_foreign(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    found = modules.read_modules(folder)
    transformer = found.transformer
    check(has_file(transformer, "config.json"), f"{transformer} has no config.json")
    if transformer != folder:
        values = read_object(transformer, "config.json")
    encoder = huggingface.read_encoder(transformer, values)
    tokenizer = read_tokenizer(transformer, encoder.model_type, lowercase=found.lowercase)
    rows, tokens = encoder.config.vocab_size, tokenizer.vocab_size
    padded = rows == tokens or rows % 8 == 0 or tokenizer.kind == "library"
    fits = 0 <= rows - tokens <= MOST_SPARE_ROWS and padded
    check(fits, f"{folder}: the tokenizer has {tokens:,} tokens, the model's table {rows:,} rows")
    special = [tokenizer.special.get(name) for name in ("bos", "cls", "sep", "eos")]
    if encoder.padding is not None and encoder.padding in special:
        raise ArtifactError(
            f"{transformer / 'config.json'}: pad_token_id {encoder.padding}, from which positions "
            "are counted, is a token around every text"
        )
    length = found.max_seq_length
    if length is None:  # as sentence-transformers: the tokenizer's, if the positions allow it
        most, name = encoder.config.max_positions, "tokenizer_config.json"
        stated = read_object(transformer, name).get("model_max_length", most)
        counts = type(stated) in (int, float) and stated >= 1
        check(counts, f"{transformer / name}: model_max_length is not a length")
        length = int(min(stated, most))
    count = tokenizer.specials
    fits = length >= max(1, count)
    check(fits, f"{folder}: {length} tokens leave no room for {count} special ones")
    options = {name: getattr(found, name) for name in ("pooling", "dense", "normalize")}
    return {
        "config": replace(encoder.config, **options, max_seq_length=length),
        "tensors": {**encoder.tensors, **found.weights},
        "tokenizer": tokenizer,
        "prompts": found.prompts,
        "default_prompt_name": found.default_prompt_name,
        "similarity": found.similarity,
    }


def _read_extras(folder: Path) -> dict[str, Any]:
    """Return what only checkpoints of ours carry, and the card and licence."""
    projection = None
    if has_file(folder, PROJECTION):
        found = huggingface.read_tensors(folder, PROJECTION)
        single = set(found) == {"weight"}
        check(single, f"{folder / PROJECTION} does not hold one matrix named 'weight'")
        projection = found["weight"]
    spaces = read_object(folder, SPACE).get("compatible_with", [])
    named = isinstance(spaces, list) and len(spaces) <= 100
    named = named and all(isinstance(one, str) and FINGERPRINT.fullmatch(one) for one in spaces)
    check(named, f"{folder / SPACE}: compatible_with is not a list of fingerprints")
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
            tensors.write(staging / PROJECTION, {"weight": checkpoint.teacher_projection}, {})
        (staging / "README.md").write_text(checkpoint.card, "utf-8")
        weights: dict[str, Array | tensors.Half]
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
        tensors.write(staging / huggingface.SINGLE, weights, {"format": "pt"})
        write_json(staging / "config.json", values)
        prompts, default = dict(checkpoint.prompts), checkpoint.default_prompt_name
        settings = None
        if any(prompts.values()) or default:
            settings = {"prompts": prompts, "default_prompt_name": default}
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
    """Write an encoder's tokenizer, licence, compatible spaces and modules.

    ``settings`` is the content of ``config_sentence_transformers.json``, not written if None. An
    encoder that is no BERT has neither settings nor modules.
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
    stated = read_object(folder, "config.json").get("model_type") if is_checkpoint(folder) else None
    return stated == MODEL_TYPE


def _half(value: Array) -> tensors.Half:
    with np.errstate(over="ignore"):
        half: tensors.Half = value.astype("f2")
    check(np.isfinite(half).all(), "checkpoint: a weight does not fit into 16 bits")
    return half
