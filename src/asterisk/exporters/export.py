"""One export: write, verify against FP32, describe, put in place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np

from asterisk import __version__, plugins, texts
from asterisk.artifact import (
    GOLDEN_TEXTS,
    GOLDEN_VECTORS,
    MANIFEST,
    TOKENIZER,
    Artifact,
    Manifest,
    is_artifact,
    is_plain_name,
    open_artifact,
    sha256,
)
from asterisk.errors import UnknownName, UsageError
from asterisk.exporters.exporter import Exporter, Recipe
from asterisk.exporters.gate import gate
from asterisk.files import replacing_folder
from asterisk.model.checkpoint import Checkpoint
from asterisk.runtimes.load import open_runtime
from asterisk.runtimes.runtime import Runtime
from asterisk.tokenizer import BUILTIN

GROUP = "asterisk.exporters"
GOLDEN = 32
Progress = Callable[[str], None]


def formats() -> tuple[str, ...]:
    """Return the registered formats; imports none of them."""
    return plugins.names(GROUP)


def exporter(format: str) -> Exporter:
    """Return the exporter of ``format``; UnknownName if there is none."""
    found: Exporter = plugins.find(GROUP, format)()
    return found


def choose(some: Exporter, name: str | None) -> Recipe:
    """Return the recipe called ``name``, or the default one; UnknownName if there is none."""
    by_name = {recipe.name: recipe for recipe in some.recipes}
    if name is None:
        return some.recipes[0]
    if name not in by_name:
        raise UnknownName(f"{some.format} has no recipe {name!r}; there are: {', '.join(by_name)}")
    return by_name[name]


def export(
    checkpoint: Checkpoint,
    format: str,
    recipe_name: str | None,
    out: Path,
    progress: Progress = lambda told: None,
) -> Artifact:
    """Export ``checkpoint`` to the folder ``out`` and return the artifact.

    ``out`` appears, or is replaced, whole and only after the artifact has passed its gate:
    FidelityError otherwise. OutputError where it cannot be written, MissingExtra where a converter
    or the engine is not installed.
    """
    reference = plugins.require("asterisk.runtimes.torch", "export").reference
    if not is_plain_name(checkpoint.name):
        raise UsageError(
            f"a checkpoint called {checkpoint.name!r} cannot be exported: "
            "rename its folder to letters, digits, '.', '_' and '-', 100 at most"
        )
    writer = exporter(format)
    recipe = choose(writer, recipe_name)
    with replacing_folder(out, is_artifact) as staging, reference(checkpoint) as truth:
        progress(f"{format} {recipe.name}: writing")
        written = writer.write(checkpoint, recipe, staging)
        copyfile(BUILTIN, staging / TOKENIZER)
        _write_golden(staging, truth)
        manifest = Manifest(
            format=format,
            recipe=recipe.name,
            name=checkpoint.name,
            entry=written.entry,
            model=checkpoint.config,
            fingerprint=checkpoint.fingerprint,
            compatible_with=(checkpoint.fingerprint,),
            files={path.name: sha256(path) for path in sorted(staging.iterdir())},
            thresholds=recipe.thresholds,
            fidelity={},
            versions={"asterisk-edge": __version__, **written.versions},
        )
        _write(staging, manifest)
        with open_runtime(open_artifact(staging)) as candidate:
            figures = gate(
                candidate,
                truth,
                recipe.thresholds,
                lambda told: progress(f"{format} {recipe.name}: {told}"),
            )
        # Rounded, so that a last bit that differs between machines does not change the manifest.
        told = {name: round(value, 6) for name, value in figures.items()}
        _write(staging, replace(manifest, fidelity=told))
    return open_artifact(out)


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def _write_golden(folder: Path, truth: Runtime) -> None:
    golden = [text.text for text in texts.load()[:GOLDEN]]
    (folder / GOLDEN_TEXTS).write_text(json.dumps(golden, indent=1, ensure_ascii=False), "utf-8")
    np.save(folder / GOLDEN_VECTORS, truth.encode(golden))
