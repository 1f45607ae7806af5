"""What there is to measure: exports what is missing, builds the peers, chooses the texts.

A process of its own, ``python -m asterisk.bench.prepare``, because exporting maps every engine:
pages that the parent shared with a worker would count half in the worker's PSS.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from asterisk import plugins, texts
from asterisk.artifact import is_artifact, open_artifact
from asterisk.bench import peers
from asterisk.bench.answer import answer
from asterisk.bench.plan import REFERENCE, Row
from asterisk.bench.texts import choose
from asterisk.errors import ArtifactError, AsteriskError, InputError, one_line
from asterisk.exporters import export as exporting
from asterisk.files import replacing_folder
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.progress import tell
from asterisk.tokenizer import gpt2

OPENER = "asterisk.runtimes.load:load"
TITLES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT", "gguf": "llama.cpp"}
# What an engine's own packages are; an adapter of somebody else's is measured without its size.
DISTRIBUTIONS = {
    "torch": ("torch", "safetensors", "numpy"),
    "onnx": ("onnxruntime", "numpy"),
    "tflite": ("ai-edge-litert", "numpy"),
    "gguf": ("xllamacpp", "numpy"),
}
# What an adapter imports only when it opens something.
ENGINES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert.interpreter",)}
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(slots=True)
class Prepared:
    """Rows in the order of the table, and one line for each that could not be prepared."""

    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def attempt(self, name: str, make: Callable[[], Row]) -> None:
        """Add what ``make`` returns, or say why it does not."""
        try:
            self.rows.append(make())
        except Exception as failure:  # converters of others raise what they like
            known = isinstance(failure, AsteriskError)
            told = str(failure) if known else f"{type(failure).__name__}: {failure}"
            self.failed[name] = " ".join(told.split())
            tell(f"{name}: {self.failed[name]}")


def main() -> int:
    """Read a request from stdin, prepare, print the answer."""
    request = json.load(sys.stdin)
    answer(lambda: _attempt(request))
    return 0


def _attempt(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return prepare(request)
    except AsteriskError as failure:
        return {"refused": one_line(failure), "status": failure.status}
    except Exception as failure:
        told = " ".join(str(failure).split())
        return {"refused": f"{type(failure).__name__}: {told}", "status": AsteriskError.status}


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Return the rows, the failures, the texts and the checkpoint's name and fingerprint.

    ``request``: ``runtimes`` and ``peers``, names; ``checkpoint``, ``artifacts``, ``work``,
    folders; ``buckets``, tokens; ``every_recipe`` for a row each instead of the default one's;
    ``recipes``, by format, one to take instead of the default one.
    ArtifactError if the checkpoint itself cannot be read.
    """
    checkpoint = load(request["checkpoint"])
    prepared = Prepared()
    for name in request["runtimes"]:
        if name == REFERENCE:
            prepared.rows.append(_reference(Path(request["checkpoint"]), checkpoint.fingerprint))
            continue
        make = partial(_artifact, checkpoint, name, Path(request["artifacts"]))
        if request["every_recipe"]:
            _attempt_each(prepared, name, make)
        else:
            prepared.attempt(name, partial(make, request.get("recipes", {}).get(name)))
    for name in request["peers"]:
        prepared.attempt(name, partial(_peer, name, Path(request["work"])))
    chosen = choose(gpt2(), request["buckets"])
    for tokens, some in chosen.buckets.items():
        if not some:
            raise InputError(f"no text that ships can be cut to exactly {tokens} tokens")
    return {
        "checkpoint": {"name": checkpoint.name, "fingerprint": checkpoint.fingerprint},
        "rows": [asdict(row) for row in prepared.rows],
        "failed": prepared.failed,
        "buckets": chosen.buckets,
        "mixed": chosen.mixed,
        "long": chosen.long,
        "texts": [text.text for text in texts.load()],
    }


def _reference(folder: Path, fingerprint: str) -> Row:
    return Row(
        name=REFERENCE,
        title=TITLES[REFERENCE],
        recipe="fp32",
        opener=OPENER,
        path=str(folder),
        modules=("asterisk.runtimes.load", "asterisk.runtimes.torch"),
        distributions=DISTRIBUTIONS[REFERENCE],
        size=sum((folder / name).stat().st_size for name in MODEL_FILES),
        spaces=(fingerprint,),
    )


def _attempt_each(prepared: Prepared, format: str, make: Callable[[str], Row]) -> None:
    try:
        recipes = exporting.exporter(format).recipes
    except AsteriskError as failure:
        prepared.failed[format] = one_line(failure)
        return

    def named(name: str, recipe: str) -> Row:
        return replace(make(recipe), name=name)

    for recipe in recipes:
        name = f"{format}-{recipe.name}"
        prepared.attempt(name, partial(named, name, recipe.name))


def _artifact(
    checkpoint: Checkpoint, format: str, artifacts: Path, recipe_name: str | None = None
) -> Row:
    recipe = exporting.choose(exporting.exporter(format), recipe_name)
    folder = artifacts / f"{checkpoint.name}-{format}-{recipe.name}"
    if not _is_current(folder, checkpoint.fingerprint):
        exporting.export(checkpoint, format, recipe.name, folder, tell)
    artifact = open_artifact(folder)
    adapter = plugins.find("asterisk.runtimes", format).__module__
    return Row(
        name=format,
        title=TITLES.get(format, format),
        recipe=recipe.name,
        opener=OPENER,
        path=str(folder),
        modules=("asterisk.runtimes.load", adapter, *ENGINES.get(format, ())),
        distributions=DISTRIBUTIONS.get(format, ()),
        size=artifact.size,
        thresholds=asdict(artifact.manifest.thresholds),
        spaces=artifact.manifest.compatible_with,
    )


def _is_current(folder: Path, fingerprint: str) -> bool:
    if not is_artifact(folder):
        return False
    try:
        return open_artifact(folder).manifest.fingerprint == fingerprint
    except ArtifactError as failure:
        tell(f"{failure}: exporting it again")
        return False


def _peer(name: str, work: Path) -> Row:
    peer = peers.find(name)
    folder = work / _edition(name, peer)
    if not folder.is_dir():
        tell(f"{name}: building its model")
        with replacing_folder(folder, lambda _: False) as staging:
            peer.prepare(staging)
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    reference = folder / "reference.npy"
    known: Row = peer.ROW
    return replace(
        known,
        name=name,
        peer=True,
        path=str(folder),
        size=sum(files.values()) - files.get(reference.name, 0),
        reference=str(reference) if reference.name in files else "",
        compared=len(np.load(reference)) if reference.name in files else 0,
    )


def _edition(name: str, peer: Any) -> str:
    """Name the folder of what ``peer`` prepares: other code or another engine, another name."""
    here = Path(peer.__file__)
    sources = sorted(here.parent.glob("*.py")) if peer.__package__ else [here]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    for needed in sorted({"onnxruntime", "torch", *peer.ROW.distributions}):
        try:
            digest.update(f"{needed} {version(needed)}".encode())
        except PackageNotFoundError:
            continue
    for text in texts.load():
        digest.update(text.text.encode())
    return f"{name}-{digest.hexdigest()[:12]}"


if __name__ == "__main__":
    sys.exit(main())
