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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asterisk import __version__
from asterisk.artifact import sha256
from asterisk.common import files, plugins, tensors
from asterisk.common.errors import ArtifactError, FidelityError, MissingExtra, UsageError, one_line
from asterisk.exporters.export import Progress, Reference, check_name, export, find_exporter
from asterisk.exporters.hub_onnx import FP32, INT8, MASK, TYPES, write_onnx
from asterisk.exporters.onnx import INPUT
from asterisk.model import huggingface, modules
from asterisk.model.checkpoint import PROJECTION, Checkpoint, write_around
from asterisk.model.config import LLAMA_POOLING
from asterisk.model.huggingface import read_state_dict
from asterisk.model.modules import write_json

MANIFEST = "asterisk.json"
FORMATS = ("onnx", "gguf", "tflite")
CARD = "README.md"
TEXTS = '["A first text.", "A second one."]'  # of the pieces of code
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_EARLIER = re.compile("<!-- asterisk-export -->.*?<!-- /asterisk-export -->\n*", re.DOTALL)
_TAGS = {  # by the formats that are there
    "": ("sentence-transformers", "feature-extraction", "sentence-similarity"),
    "onnx": ("onnx", "transformers.js"),
    "gguf": ("gguf",),
    "tflite": ("tflite",),
}
_IMAGE = re.compile(r"!\[[^\]]*\]\(([A-Za-z0-9][A-Za-z0-9._-]*\.(?:png|jpe?g|gif|svg|webp))\)")


@dataclass(frozen=True, slots=True)
class HubFolder:
    """What was written, and what was not, by file: names relative to ``folder``, with ``/``."""

    folder: Path
    figures: Mapping[str, Mapping[str, float]]  # the gate's
    refused: Mapping[str, UsageError | FidelityError]


def is_hub_folder(folder: Path) -> bool:
    """Tell whether ``folder`` was written here and holds nothing that was not."""
    try:
        manifest = files.read_object(folder, MANIFEST)
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
    on_progress: Progress = lambda line: None,
    *,
    reference: Reference,
) -> HubFolder:
    """Write the hub layout of ``checkpoint``, with ``formats`` of `FORMATS`, as the folder ``out``.

    Every file of an engine has passed the gate. One that cannot be written, or does not pass, is
    named in the result and in the model card; where none can be, the first one's error is raised
    and nothing is written. UsageError for an encoder that is no BERT, or that was not read from a
    folder; OutputError where ``out`` holds something else.
    """
    if not checkpoint.config.bert_shaped:
        raise UsageError(
            f"{checkpoint.name} is not of BERT's shape: it has no hub layout, since other people's "
            "loaders have no such encoder"
        )
    check_name(checkpoint)
    if checkpoint.folder is None:
        raise UsageError(f"{checkpoint.name} was not read from a folder: it has no hub layout")
    encoder = modules.read_modules(checkpoint.folder).transformer
    token_types = TYPES in _input_names(encoder)
    files.check_replaceable(out, is_hub_folder)
    figures: dict[str, dict[str, float]] = {}
    refused: dict[str, UsageError | FidelityError] = {}
    with files.replacing_folder(out, is_hub_folder) as staging:
        write_owners(staging, checkpoint)
        for name, format in _engine_files(checkpoint, formats).items():
            path = staging / name
            path.parent.mkdir(exist_ok=True)
            try:
                if format == "onnx":
                    more = name, reference, on_progress
                    found = write_onnx(checkpoint, path, *more, token_types=token_types)
                else:
                    found = _write_exported(checkpoint, path, format, reference, on_progress)
            except (UsageError, FidelityError) as failure:
                path.unlink(missing_ok=True)
                refused[name] = type(failure)(f"{name}: {one_line(failure)}")
                on_progress(str(refused[name]))
                continue
            figures[name] = {key: round(value, 6) for key, value in found.items()}
        if not figures:
            first = next(iter(refused.values()))
            raise type(first)("; ".join(map(str, refused.values())))
        _write_encoder(encoder, staging)
        _write_settings(checkpoint, staging)
        write_card(staging, checkpoint, figures, refused)
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
        write_json(staging / MANIFEST, manifest, ensure_ascii=False)
    return HubFolder(out, figures, refused)


def _files(folder: Path) -> set[str]:
    """Return the names of all files in ``folder``, relative to it."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found}


def _engine_files(checkpoint: Checkpoint, formats: Sequence[str]) -> dict[str, str]:
    """Return the format of each engine's file by its name."""
    names: dict[str, str] = {}
    for format in formats:
        recipe = find_exporter(format).recipes[0].name
        label = recipe.upper() if format == "gguf" else recipe  # as files in GGUF are called
        own = (FP32, INT8) if format == "onnx" else [f"{checkpoint.name}-{label}.{format}"]
        names |= dict.fromkeys(own, format)
    return names


def _write_exported(
    checkpoint: Checkpoint, path: Path, format: str, reference: Reference, on_progress: Progress
) -> Mapping[str, float]:
    """Write the engine's file of an export under the default recipe, which passed its gate."""
    config = checkpoint.config
    # Our own runtime makes up for what llama.cpp lacks; other programs that open the file do not.
    if format == "gguf" and config.dense:
        raise UsageError("llama.cpp's bert has no Dense maps: its vectors would lack them")
    if format == "gguf" and not LLAMA_POOLING[config.pooling]:
        raise UsageError(f"llama.cpp has no pooling by {config.pooling}")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        out = Path(scratch) / "artifact"
        artifact = export(checkpoint, format, None, out, on_progress, reference=reference)
        artifact.entry.rename(path)
    return artifact.manifest.fidelity


def _input_names(encoder: Path) -> list[str]:
    """Return what the forward pass of an encoder takes."""
    types = [TYPES] if files.read_object(encoder, "config.json")["model_type"] == "bert" else []
    return [INPUT, *types, MASK]


def _write_encoder(source: Path, folder: Path) -> None:
    """Write ``config.json`` and the weights as their owner stores them; a pickle is converted."""
    values = files.read_object(source, "config.json")
    values.pop("torch_dtype", None)
    # Whatever width weights are stored in: the vectors that all others are compared with.
    write_json(folder / "config.json", {**values, "dtype": "float32"}, ensure_ascii=False)
    names = {"vocab.txt"} if files.has_file(source, "vocab.txt") else set()
    if files.has_file(source, huggingface.SINGLE):
        names.add(huggingface.SINGLE)
    elif files.has_file(source, huggingface.INDEX):
        shards = files.read_json(source, huggingface.INDEX)["weight_map"].values()
        names |= {huggingface.INDEX, *shards}
    else:
        state = read_state_dict(files.regular_file(source, huggingface.PICKLE, files.LARGEST_FILE))
        tensors.write(folder / huggingface.SINGLE, state, {"format": "pt"})
    for name in names:
        _copy(source, name, folder)


def _write_settings(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the tokenizer, the modules after the encoder, and what their owner's folder says.

    In words that all versions read: libraries differ in which of a folder's files they believe.
    """
    tokenizer = checkpoint.tokenizer.settings(checkpoint.config.max_seq_length)
    tokenizer["model_input_names"] = _input_names(folder)
    special = {name: text for name, text in tokenizer.items() if name.endswith("_token")}
    write_json(folder / "special_tokens_map.json", special, ensure_ascii=False)
    settings = {
        "prompts": dict(checkpoint.prompts),
        "default_prompt_name": checkpoint.default_prompt_name,
        "similarity_fn_name": checkpoint.similarity,
    }
    write_around(checkpoint, folder, tokenizer, settings, ensure_ascii=False)
    for name in (*set(_IMAGE.findall(checkpoint.card)), PROJECTION):
        if checkpoint.folder and files.has_file(checkpoint.folder, name):
            _copy(checkpoint.folder, name, folder)


def _copy(source: Path, name: str, folder: Path) -> None:
    shutil.copyfile(files.regular_file(source, name, files.LARGEST_FILE), folder / name)


def write_owners(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the owner's card; ArtifactError if a hub would refuse its YAML."""
    body = _EARLIER.sub("", checkpoint.card).rstrip() or f"# {checkpoint.name}"
    path = folder / CARD
    path.write_text(f"{body}\n", "utf-8")
    try:
        plugins.require("huggingface_hub", "export").metadata_load(path)
    except MissingExtra:
        raise
    except Exception as failure:
        raise ArtifactError(
            f"{checkpoint.folder}/{CARD} does not begin with valid YAML: {one_line(failure)[:200]}"
        ) from None


def write_card(
    folder: Path,
    checkpoint: Checkpoint,
    figures: Mapping[str, Mapping[str, float]],
    refused: Mapping[str, Exception],
) -> None:
    """Complete the card in ``folder``: what was written, and what was not."""
    hub = plugins.require("huggingface_hub", "export")
    environment = plugins.require("jinja2", "export").Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["code"] = _code
    tokenizer = checkpoint.tokenizer
    last = {name.rpartition(".")[2]: name for name in figures}  # of two files the int8 one
    section = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        version=__version__,
        checkpoint=checkpoint,
        special_tokens=[tokenizer.tokens[i] for i in sorted(set(tokenizer.special.values()))],
        two=TEXTS,
        figures=figures,
        sizes={name: (folder / name).stat().st_size for name in figures},
        refused=refused,
        **last,
    )
    path = folder / CARD
    with path.open("a", encoding="utf-8") as card:
        card.write("\n" + section)
    metadata = hub.metadata_load(path) or {}
    tags = metadata.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    for format, more in _TAGS.items():
        tags += more if format in ("", *last) else ()
    completed = dict(metadata)  # the owner's words come first
    completed.setdefault("library_name", "sentence-transformers")
    completed.setdefault("pipeline_tag", "sentence-similarity")
    completed["tags"] = list(dict.fromkeys(tags))
    if checkpoint.source and "base_model" not in metadata:
        completed["base_model"] = checkpoint.source.partition("@")[0]
        completed["base_model_relation"] = "quantized"
    hub.metadata_save(path, completed)


def _code(text: str) -> str:
    """Return ``text`` as Markdown's code, which has no backtick and no line break."""
    return f"`{json.dumps(text, ensure_ascii=False)[1:-1].replace('`', chr(39))}`"
