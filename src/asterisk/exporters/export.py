"""One export: write, verify against FP32, describe, put in place."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from asterisk import __version__
from asterisk.artifact import (
    GOLDEN_TEXTS,
    GOLDEN_VECTORS,
    MANIFEST,
    Artifact,
    Manifest,
    is_artifact,
    is_plain_name,
    open_artifact,
    sha256,
)
from asterisk.common import plugins
from asterisk.common.errors import FidelityError, UnknownName, UsageError, one_line
from asterisk.common.files import replacing_folder
from asterisk.exporters.exporter import Exporter, Recipe
from asterisk.exporters.gate import Progress, Reference, gate
from asterisk.model.checkpoint import Checkpoint
from asterisk.runtimes.load import open_runtime

GROUP = "asterisk.exporters"
GOLDEN = 32
AUTO = "auto"
Place = Path | Callable[[Recipe], Path]


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


@contextlib.contextmanager
def open_reference(checkpoint: Checkpoint, texts: Sequence[str] = ()) -> Iterator[Reference]:
    """Open the FP32 reference of ``checkpoint`` for any number of exports.

    ``texts`` are the user's own, for the gate and for calibration beside those that ship.
    """
    opened = plugins.require("asterisk.runtimes.torch", "export").reference(checkpoint)
    with opened as runtime:
        yield Reference(runtime, texts)


def export(
    checkpoint: Checkpoint,
    format: str,
    recipe_name: str | None,
    out: Place,
    progress: Progress = lambda told: None,
    *,
    reference: Reference | None = None,
) -> Artifact:
    """Export ``checkpoint`` to the folder ``out``, or ``out(recipe)``, and return the artifact.

    ``out`` appears, or is replaced, whole and only after the artifact has passed its gate:
    FidelityError otherwise, which names a larger recipe that would pass. Recipe ``auto`` is the
    smallest one that passes. ``reference`` saves opening one. OutputError where ``out`` cannot be
    written, UsageError for a model that the format cannot hold, MissingExtra where a converter or
    the engine is not installed.
    """
    if not is_plain_name(checkpoint.name):
        raise UsageError(
            f"a checkpoint called {checkpoint.name!r} cannot be exported: "
            "rename its folder to letters, digits, '.', '_' and '-', 100 at most"
        )
    writer = exporter(format)
    if recipe_name != AUTO:
        recipe = choose(writer, recipe_name)
    if reference is None:
        with open_reference(checkpoint) as opened:
            return export(checkpoint, format, recipe_name, out, progress, reference=opened)
    if recipe_name == AUTO:
        return _smallest(checkpoint, writer, out, progress, reference)
    try:
        return _export(checkpoint, writer, recipe, out, progress=progress, reference=reference)
    except FidelityError as failure:
        larger = [other for other in _by_size(writer) if other.bits > recipe.bits]
        advice = _would_pass(checkpoint, writer, larger, progress, reference)
        raise FidelityError(f"{format} {recipe.name}: {failure}; {advice}") from None


def _by_size(writer: Exporter) -> list[Recipe]:
    return sorted(writer.recipes, key=lambda recipe: recipe.bits)


def _smallest(
    checkpoint: Checkpoint, writer: Exporter, out: Place, progress: Progress, reference: Reference
) -> Artifact:
    refused: dict[str, UsageError | FidelityError] = {}
    for recipe in _by_size(writer):
        try:
            return _export(checkpoint, writer, recipe, out, progress=progress, reference=reference)
        except (FidelityError, UsageError) as failure:
            refused[recipe.name] = failure
            progress(f"{writer.format} {recipe.name}: {one_line(failure)}")
    first = next(iter(refused.values()))
    if isinstance(first, UsageError) and len(set(map(str, refused.values()))) == 1:
        raise first  # of the model, whatever the recipe
    reasons = "; ".join(f"{name}: {one_line(failure)}" for name, failure in refused.items())
    raise FidelityError(f"no recipe of {writer.format} will do; {reasons}")


def _would_pass(
    checkpoint: Checkpoint,
    writer: Exporter,
    larger: Sequence[Recipe],
    progress: Progress,
    reference: Reference,
) -> str:
    for recipe in larger:
        progress(f"{writer.format} {recipe.name}: looking whether it would pass")
        with tempfile.TemporaryDirectory() as scratch:
            try:
                _export(
                    checkpoint,
                    writer,
                    recipe,
                    Path(scratch) / "it",
                    progress=progress,
                    reference=reference,
                )
            except (FidelityError, UsageError):
                continue
        return f"recipe {recipe.name} would pass"
    return "no larger recipe would pass"


def _export(
    checkpoint: Checkpoint,
    writer: Exporter,
    recipe: Recipe,
    out: Place,
    *,
    progress: Progress,
    reference: Reference,
) -> Artifact:
    out = out if isinstance(out, Path) else out(recipe)
    told = f"{writer.format} {recipe.name}"
    limits = writer.thresholds(recipe, checkpoint.config.num_layers)
    with replacing_folder(out, is_artifact) as staging:
        progress(f"{told}: writing")
        written = writer.write(checkpoint, recipe, staging, reference.samples)
        name, contents = checkpoint.tokenizer.compile()
        (staging / name).write_bytes(contents)
        _write_golden(staging, reference)
        manifest = Manifest(
            format=writer.format,
            recipe=recipe.name,
            name=checkpoint.name,
            entry=written.entry,
            tokenizer=name,
            model=checkpoint.config,
            fingerprint=checkpoint.fingerprint,
            compatible_with=(checkpoint.fingerprint, *checkpoint.compatible_with),
            prompts=checkpoint.prompts,
            default_prompt_name=checkpoint.default_prompt_name,
            similarity=checkpoint.similarity,
            source=checkpoint.source,
            files={path.name: sha256(path) for path in sorted(staging.iterdir())},
            thresholds=limits,
            fidelity={},
            versions={"asterisk-edge": __version__, **written.versions},
        )
        _write(staging, manifest)
        with open_runtime(open_artifact(staging)) as candidate:
            figures = gate(candidate, reference, limits, lambda line: progress(f"{told}: {line}"))
        # Rounded, so that a last bit that differs between machines does not change the manifest.
        rounded = {name: round(value, 6) for name, value in figures.items()}
        _write(staging, replace(manifest, fidelity=rounded))
    return open_artifact(out)


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")


def _write_golden(folder: Path, reference: Reference) -> None:
    golden = reference.texts[:GOLDEN]
    (folder / GOLDEN_TEXTS).write_text(json.dumps(golden, indent=1, ensure_ascii=False), "utf-8")
    vectors = reference.vectors[:GOLDEN]
    lengths = np.linalg.norm(vectors.astype("f8"), axis=1, keepdims=True)
    np.save(folder / GOLDEN_VECTORS, (vectors / lengths).astype(np.float32))
