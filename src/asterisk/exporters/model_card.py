"""The README.md of a hub folder: its owner's card, and how each loader opens what lies beside it.

The text is a template, ``model_card.md.jinja``. Its pieces of code are meant to be pasted. They
open the folder that they are run in; the tests run them as they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from asterisk import __version__
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, MissingExtra, one_line
from asterisk.model.checkpoint import Checkpoint

CARD = "README.md"
TEXTS = '["A first text.", "A second one."]'  # of the pieces of code
_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_EARLIER = re.compile("<!-- asterisk-export -->.*?<!-- /asterisk-export -->\n*", re.DOTALL)
_TAGS = ("sentence-transformers", "feature-extraction", "sentence-similarity")
_TAGS_OF_FORMATS = {
    ".onnx": ("onnx", "transformers.js"),
    ".gguf": ("gguf",),
    ".tflite": ("tflite",),
}
_POOLINGS = {
    "mean": "the mean of the tokens' vectors",
    "cls": "the first token's vector",
    "max": "the largest value of the tokens' vectors in each dimension",
    "mean_sqrt_len_tokens": "the sum of the tokens' vectors by the root of their number",
}


def write_owners(folder: Path, checkpoint: Checkpoint) -> None:
    """Write what the owner of ``checkpoint`` says into ``folder``, where `write` completes it.

    ArtifactError where their card does not begin with valid YAML: a hub would refuse it.
    """
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


def write(
    folder: Path,
    checkpoint: Checkpoint,
    figures: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    refused: Mapping[str, Exception],
) -> None:
    """Complete the card of ``checkpoint`` in ``folder``.

    ``figures`` are the gate's by file, ``sizes`` those files' in bytes; ``refused`` says by name
    why a file is missing.
    """
    hub = plugins.require("huggingface_hub", "export")
    path = folder / CARD
    with path.open("a", encoding="utf-8") as card:
        card.write("\n" + _section(checkpoint, figures, sizes, refused))
    metadata = hub.metadata_load(path) or {}
    tags = metadata.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    for suffix, more in (("", _TAGS), *_TAGS_OF_FORMATS.items()):
        tags += more if _last_file(figures, suffix) else ()
    completed = dict(metadata)  # the owner's words come first
    completed.setdefault("library_name", "sentence-transformers")
    completed.setdefault("pipeline_tag", "sentence-similarity")
    completed["tags"] = list(dict.fromkeys(tags))
    if checkpoint.source and "base_model" not in metadata:
        completed["base_model"] = checkpoint.source.partition("@")[0]
        completed["base_model_relation"] = "quantized"
    hub.metadata_save(path, completed)


def _last_file(files: Mapping[str, object], suffix: str) -> str:
    """Return the last file with a suffix, the int8 one of two; empty if there is none."""
    return ([""] + [name for name in files if name.endswith(suffix)])[-1]


def _section(
    checkpoint: Checkpoint,
    figures: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
    refused: Mapping[str, Exception],
) -> str:
    """Return the part of the card about this folder's files."""
    jinja = plugins.require("jinja2", "export")
    environment = jinja.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["code"] = _code
    tokens, special = checkpoint.tokenizer.tokens, checkpoint.tokenizer.special
    default = checkpoint.default_prompt_name
    section: str = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        version=__version__,
        name=checkpoint.name,
        source=checkpoint.source,
        config=checkpoint.config,
        pooling=_POOLINGS[checkpoint.config.pooling],
        prompts={name: text for name, text in checkpoint.prompts.items() if text},
        default_prompt=checkpoint.prompts[default] if default else None,
        special_tokens=[tokens[index] for index in sorted(set(special.values()))],
        wordpiece=checkpoint.tokenizer.kind == "wordpiece",
        texts=f"{next(iter(figures.values()))['texts']:,.0f}",
        two=TEXTS,
        figures=figures,
        sizes=sizes,
        refused=refused,
        onnx=_last_file(figures, ".onnx"),
        gguf=_last_file(figures, ".gguf"),
        tflite=_last_file(figures, ".tflite"),
    )
    return section


def _code(text: str) -> str:
    """Return ``text`` as Markdown's code, which has no backtick and no line break."""
    return f"`{json.dumps(text, ensure_ascii=False)[1:-1].replace('`', chr(39))}`"
