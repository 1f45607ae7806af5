"""The hub layout: one folder, to be uploaded as it is, that other people's loaders open.

::

    README.md                      the owner's card, and how each loader opens what is here
    config.json, model.safetensors the encoder, as its owner stores it
    tokenizer.json, ..., modules.json, 1_Pooling, 2_Dense, ...
                                   what is around it, in words that every version reads
    onnx/model.onnx                in float32, batch and length dynamic, for ONNX Runtime,
    onnx/model_quantized.onnx      in int8      transformers.js, fastembed, ...
    NAME-Q8_0.gguf                 for llama.cpp
    NAME-int8.tflite               for LiteRT
    asterisk.json                  sha256 of every other file and the gate's figures
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asterisk import __version__
from asterisk.artifact import is_plain_name, sha256
from asterisk.common import plugins, tensors
from asterisk.common.errors import ArtifactError, EngineError, FidelityError, UsageError, one_line
from asterisk.common.files import (
    LARGEST_FILE,
    check_replaceable,
    has_file,
    read_json,
    read_object,
    regular_file,
    replacing_folder,
)
from asterisk.evaluation.fidelity import stability
from asterisk.exporters import model_card
from asterisk.exporters.export import export, exporter
from asterisk.exporters.gate import Progress, Reference, gate
from asterisk.exporters.onnx_batch import MASK, SENTENCE, TYPES, batch_model
from asterisk.exporters.onnx_graph import INPUT
from asterisk.exporters.thresholds import thresholds
from asterisk.model import huggingface, modules
from asterisk.model.checkpoint import LICENSE, PROJECTION, SPACE, Checkpoint
from asterisk.model.config import LLAMA_POOLING
from asterisk.model.huggingface import read_state_dict
from asterisk.runtimes.engine import Engine, Vector
from asterisk.runtimes.onnx import session_options
from asterisk.runtimes.runtime import Runtime, Vectors

MANIFEST = "asterisk.json"
FORMATS = ("onnx", "gguf", "tflite")
FP32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
BATCH = 16  # texts of mixed lengths that the gate pads to one length
EVERY = 4  # of the gate's texts, one of so many is embedded in a padded batch too
# Sums over a padded row are added in another order; int8 then rounds some values the other way.
LEAST_IN_BATCH = {FP32: 0.99999, INT8: 0.999}
_IMAGE = re.compile(r"!\[[^\]]*\]\(([A-Za-z0-9][A-Za-z0-9._-]*\.(?:png|jpe?g|gif|svg|webp))\)")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """What was written: ``figures`` are the gate's by file, ``refused`` what could not be.

    File names are relative to ``folder``, with ``/``.
    """

    folder: Path
    figures: Mapping[str, Mapping[str, float]]
    refused: Mapping[str, UsageError | FidelityError]


def is_hub_folder(folder: Path) -> bool:
    """Tell whether ``folder`` was written here and holds nothing that was not."""
    try:
        manifest = read_object(folder, MANIFEST)
    except ArtifactError:
        return False
    listed = manifest.get("files")
    if manifest.get("layout") != "hub" or not isinstance(listed, dict):
        return False
    return _files(folder) <= {MANIFEST, *listed}


def write_hub_folder(
    checkpoint: Checkpoint,
    formats: Sequence[str],
    out: Path,
    progress: Progress = lambda told: None,
    *,
    reference: Reference,
) -> HubFolder:
    """Write the hub layout of ``checkpoint``, with ``formats`` of `FORMATS`, as the folder ``out``.

    Every file of an engine has passed the gate. One that cannot be written, or does not pass, is
    named in the result and in the model card, and the others are written; where none can be, the
    first one's error is raised and nothing is. UsageError for an encoder that is no BERT, and for
    a checkpoint that was not read from a folder; OutputError where ``out`` holds something else.
    """
    if not checkpoint.config.bert_shaped:
        raise UsageError(
            f"{checkpoint.name} is not of BERT's shape: no loader of others has such an encoder, "
            "so that it has no hub layout"
        )
    if not is_plain_name(checkpoint.name):
        raise UsageError(
            f"a checkpoint called {checkpoint.name!r} cannot be exported: "
            "rename its folder to letters, digits, '.', '_' and '-', 100 at most"
        )
    encoder = _encoder_folder(checkpoint)
    check_replaceable(out, is_hub_folder)
    figures: dict[str, dict[str, float]] = {}
    refused: dict[str, UsageError | FidelityError] = {}
    with replacing_folder(out, is_hub_folder) as staging:
        model_card.write_owners(staging, checkpoint)
        for name, write in _engine_files(checkpoint, formats, reference, progress).items():
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            try:
                found = write(path)
            except (UsageError, FidelityError) as failure:
                path.unlink(missing_ok=True)
                refused[name] = type(failure)(f"{name}: {one_line(failure)}")
                progress(str(refused[name]))
                continue
            figures[name] = {key: round(value, 6) for key, value in found.items()}
        if not figures:
            first = next(iter(refused.values()))
            raise type(first)("; ".join(map(str, refused.values())))
        _write_encoder(encoder, staging)
        _write_around(checkpoint, staging)
        sizes = {name: (staging / name).stat().st_size for name in figures}
        model_card.write(staging, checkpoint, figures, sizes, refused)
        manifest = {
            "layout": "hub",
            "name": checkpoint.name,
            "fingerprint": checkpoint.fingerprint,
            "source": checkpoint.source,
            "files": {name: sha256(staging / name) for name in sorted(_files(staging))},
            "fidelity": figures,
            "refused": {name: one_line(failure) for name, failure in refused.items()},
            "versions": {"asterisk-edge": __version__},
        }
        _write_json(staging / MANIFEST, manifest)
    return HubFolder(out, figures, refused)


def _files(folder: Path) -> set[str]:
    """Return the names of all files in ``folder``, relative to it."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


# What engines read


def _engine_files(
    checkpoint: Checkpoint, formats: Sequence[str], reference: Reference, progress: Progress
) -> dict[str, Callable[[Path], dict[str, float]]]:
    """Return, by name, what writes a file and returns the gate's figures."""
    writers: dict[str, Callable[[Path], dict[str, float]]] = {}
    for format in formats:
        if format == "onnx":
            for name in (FP32, INT8):

                def batched(path: Path, name: str = name) -> dict[str, float]:
                    return _write_onnx(checkpoint, name, path, reference, progress)

                writers[name] = batched
            continue
        recipe = exporter(format).recipes[0].name
        label = recipe.upper() if format == "gguf" else recipe  # as files in GGUF are called

        def exported(path: Path, format: str = format) -> dict[str, float]:
            return _write_exported(checkpoint, format, path, reference, progress)

        writers[f"{checkpoint.name}-{label}.{format}"] = exported
    return writers


def _write_exported(
    checkpoint: Checkpoint, format: str, path: Path, reference: Reference, progress: Progress
) -> dict[str, float]:
    """Write the engine's file of an export under the default recipe, which passed its gate."""
    if format == "gguf":
        _check_llama_cpp(checkpoint)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        place = Path(scratch) / "artifact"
        artifact = export(checkpoint, format, None, place, progress, reference=reference)
        artifact.entry.rename(path)
    return dict(artifact.manifest.fidelity)


def _check_llama_cpp(checkpoint: Checkpoint) -> None:
    """Refuse what a ``.gguf`` holds only with what our own runtime does after llama.cpp."""
    if checkpoint.config.dense:
        raise UsageError("llama.cpp's bert has no Dense maps, its vectors would lack them")
    if not LLAMA_POOLING[checkpoint.config.pooling]:
        raise UsageError(f"llama.cpp has no pooling by {checkpoint.config.pooling}")


def _write_onnx(
    checkpoint: Checkpoint, name: str, path: Path, reference: Reference, progress: Progress
) -> dict[str, float]:
    """Write one of the two ONNX files and hold it to the gate, alone and in padded batches."""
    progress(f"{name}: writing")
    quantised = name == INT8
    model = batch_model(
        checkpoint,
        quantised=quantised,
        samples=reference.samples if quantised else (),
        token_types=TYPES in _inputs(_encoder_folder(checkpoint)),
    )
    path.write_bytes(model)
    engine = BatchEngine(path, checkpoint.tokenizer.special.get("pad", 0))
    limits = thresholds("int8" if quantised else "fp32", checkpoint.config.num_layers)
    truth = reference.runtime
    with Runtime([engine], truth.tokenizer, checkpoint.config, checkpoint.fingerprint) as runtime:
        found = gate(runtime, reference, limits, lambda line: progress(f"{name}: {line}"))
        progress(f"{name}: embedding in padded batches")
        some = reference.texts[::EVERY]
        ids = [runtime.tokenize(text) for text in some]
        batches = [engine.batch(ids[at : at + BATCH]) for at in range(0, len(ids), BATCH)]
        alone = runtime.encode(some, prompt="", normalize=False)
        least = stability(alone, np.concatenate(batches))
    if not least >= LEAST_IN_BATCH[name]:
        raise FidelityError(
            f"a text's vector in a padded batch has a cosine of {least:.5f} with its own alone, "
            f"below {LEAST_IN_BATCH[name]}"
        )
    return {**found, "cosine_min_in_batch": least}


class BatchEngine(Engine):
    """ONNX Runtime on a file of the hub layout, which takes padded batches."""

    format = "onnx"

    def __init__(self, path: Path, padding: int) -> None:
        ort = plugins.require("onnxruntime", "onnx")
        self._padding = padding
        try:
            self._session: Any = ort.InferenceSession(
                str(path), session_options(ort), providers=["CPUExecutionProvider"]
            )
        except Exception as failure:
            raise EngineError(f"ONNX Runtime refuses {path.name}: {one_line(failure)}") from None
        self._inputs = {value.name for value in self._session.get_inputs()}

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the vector of one text, float32 [embedding_size]."""
        vector: Vector = self.batch([ids])[0]
        return vector

    def batch(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """Return the vectors of n texts, padded to one length, float32 [n, embedding_size]."""
        shape = len(texts), max(map(len, texts))
        ids, mask = np.full(shape, self._padding, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        given = {INPUT: ids, MASK: mask, TYPES: np.zeros_like(ids)}
        given = {name: value for name, value in given.items() if name in self._inputs}
        try:
            vectors: Vectors = self._session.run([SENTENCE], given)[0]
        except Exception as failure:
            raise EngineError(f"ONNX Runtime: {one_line(failure)}") from None
        return vectors


# What PyTorch's loaders read


def _encoder_folder(checkpoint: Checkpoint) -> Path:
    """Return where the encoder's files lie: the owner's folder or that of its first module."""
    if checkpoint.folder is None:
        raise UsageError(f"{checkpoint.name} was not read from a folder: it has no hub layout")
    return modules.read_modules(checkpoint.folder).transformer


def _write_encoder(source: Path, folder: Path) -> None:
    """Write ``config.json`` and the weights as their owner stores them; a pickle is converted."""
    values = read_object(source, "config.json")
    values.pop("torch_dtype", None)
    # Whatever width weights are stored in: the vectors that all others are compared with.
    _write_json(folder / "config.json", {**values, "dtype": "float32"})
    if has_file(source, "vocab.txt"):
        _copy(source, "vocab.txt", folder)
    if has_file(source, huggingface.SINGLE):
        _copy(source, huggingface.SINGLE, folder)
    elif has_file(source, huggingface.INDEX):
        shards = set(read_json(source, huggingface.INDEX)["weight_map"].values())
        for name in (huggingface.INDEX, *shards):
            _copy(source, name, folder)
    else:
        state = read_state_dict(regular_file(source, huggingface.PICKLE, LARGEST_FILE))
        tensors.write(folder / huggingface.SINGLE, state, {"format": "pt"})


def _inputs(folder: Path) -> list[str]:
    """Return what the forward pass of the encoder in ``folder`` takes."""
    types = [TYPES] if read_object(folder, "config.json")["model_type"] == "bert" else []
    return [INPUT, *types, MASK]


def _write_around(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the tokenizer, the modules after the encoder, and what their owner's folder says.

    In words that all versions read: libraries differ in which of a folder's files they believe
    about its tokenizer, and new ones write what older ones cannot read.
    """
    config = checkpoint.config
    settings = checkpoint.tokenizer.settings(config.max_seq_length)
    settings["model_input_names"] = _inputs(folder)
    _write_json(folder / "tokenizer_config.json", settings)
    named = {key: value for key, value in settings.items() if key.endswith("_token")}
    _write_json(folder / "special_tokens_map.json", named)
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.to_json(), "utf-8")
    limit = {"max_seq_length": config.max_seq_length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", limit)
    said = {
        "prompts": dict(checkpoint.prompts),
        "default_prompt_name": checkpoint.default_prompt_name,
        "similarity_fn_name": checkpoint.similarity,
    }
    _write_json(folder / modules.SETTINGS, said)
    modules.write_modules(config, checkpoint.tensors, folder)
    if checkpoint.licence:
        (folder / LICENSE).write_text(checkpoint.licence, "utf-8")
    if checkpoint.compatible_with:
        _write_json(folder / SPACE, {"compatible_with": list(checkpoint.compatible_with)})
    for name in (*set(_IMAGE.findall(checkpoint.card)), PROJECTION):
        if checkpoint.folder and has_file(checkpoint.folder, name):
            _copy(checkpoint.folder, name, folder)


def _copy(source: Path, name: str, folder: Path) -> None:
    shutil.copyfile(regular_file(source, name, LARGEST_FILE), folder / name)
