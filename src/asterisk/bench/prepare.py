"""What there is to measure: exports what is missing, builds the peers, chooses the texts.

A process of its own, ``python -m asterisk.bench.prepare``, because exporting maps every engine:
pages that the parent shared with a worker would count half in the worker's PSS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from asterisk.artifact import is_artifact, open_artifact
from asterisk.bench import peers, spawn
from asterisk.bench.answer import answer
from asterisk.bench.model_files import model_files
from asterisk.bench.peers.minilm import MODEL as MINILM
from asterisk.bench.plan import REFERENCE, Row
from asterisk.bench.texts import choose
from asterisk.common import plugins, texts
from asterisk.common.errors import ArtifactError, AsteriskError, InputError, UsageError, one_line
from asterisk.common.terminal import report as tell
from asterisk.exporters import export as exporting
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.hub import open_checkpoint

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
BUILDING = 5  # times as long as a measurement may take


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
            known = isinstance(failure, AsteriskError | spawn.CellError)
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

    ``request``: ``runtimes`` and ``peers``, names; ``checkpoint``, a folder or a model's name;
    ``artifacts``, ``work``, folders; ``buckets``, tokens; ``every_recipe`` for a row each instead
    of the default one's; ``recipes``, by format, one to take instead of the default one; and, for
    peers, ``peer_python``, an interpreter, and ``timeout``, seconds.
    AsteriskError if the checkpoint itself cannot be read.
    """
    checkpoint, folder = open_named(request["checkpoint"])
    longest = checkpoint.config.max_seq_length
    if max(request["buckets"]) > longest:
        raise UsageError(
            f"{checkpoint.name} reads {longest} tokens: --buckets {longest} are the most"
        )
    prepared = Prepared()
    for name in request["runtimes"]:
        if name == REFERENCE:
            prepared.rows.append(_reference(folder, checkpoint.fingerprint))
            continue
        make = partial(_artifact, checkpoint, name, Path(request["artifacts"]))
        if request["every_recipe"]:
            _attempt_each(prepared, name, make)
        else:
            prepared.attempt(name, partial(make, request.get("recipes", {}).get(name)))
    for name in request["peers"]:
        if name == "minilm" and checkpoint.name == MINILM and "dynamic" in request["peers"]:
            continue  # it would be that row once more
        prepared.attempt(name, partial(_peer, name, folder, checkpoint.fingerprint, request))
    chosen = choose(checkpoint.tokenizer.open(), request["buckets"])
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


def open_named(name: str) -> tuple[Checkpoint, Path]:
    """Read a checkpoint: a folder, or the name of a model in a package or on the hub."""
    checkpoint = open_checkpoint(name)
    if checkpoint.folder is None:
        raise AssertionError("unreachable: a checkpoint that was read has a folder")
    return checkpoint, checkpoint.folder


def _reference(folder: Path, fingerprint: str) -> Row:
    return Row(
        name=REFERENCE,
        title=TITLES[REFERENCE],
        recipe="fp32",
        opener=OPENER,
        path=str(folder),
        modules=("asterisk.runtimes.load", "asterisk.runtimes.torch"),
        distributions=DISTRIBUTIONS[REFERENCE],
        size=sum(path.stat().st_size for path in model_files(folder)),
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


def _peer(name: str, checkpoint: Path, fingerprint: str, request: dict[str, Any]) -> Row:
    """Return a peer's row; CellError, one line, if it is missing, fails, crashes or hangs.

    The usual ones need no environment of their own, and one of somebody else's runs where it is
    installed: here.
    """
    elsewhere = name in peers.BUILTIN and name not in peers.USUAL
    python = request.get("peer_python", "") if elsewhere else ""
    tell(f"{name}: preparing")
    spec = {
        "name": name,
        "work": str(Path(request["work"]).absolute()),
        "checkpoint": str(checkpoint),
        "fingerprint": fingerprint,
    }
    answer = spawn.ask(
        "asterisk.bench.peers.build",
        spec,
        BUILDING * request["timeout"],
        python=(python or sys.executable,),
    )
    return replace(Row.from_dict(answer["row"]), python=python)


if __name__ == "__main__":
    sys.exit(main())
