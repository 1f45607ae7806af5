"""One export: write the engine's files, compare them with FP32, describe them, move into place.

The comparison is the fidelity gate: an artifact leaves only if its own runtime gives the right
vectors.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from asterisk import __version__, artifact
from asterisk.artifact import Artifact, Thresholds
from asterisk.common import plugins, texts
from asterisk.common.errors import FidelityError, UnknownName, UsageError, one_line
from asterisk.common.files import replacing_folder
from asterisk.evaluation.fidelity import compare
from asterisk.exporters import Exporter, Recipe
from asterisk.model.checkpoint import Checkpoint
from asterisk.runtimes.load import open_runtime
from asterisk.runtimes.runtime import Runtime, Vectors

GROUP = "asterisk.exporters"
AUTO = "auto"
GOLDEN = 32  # texts that an artifact carries with their FP32 vectors
LENGTHS = (1, 2, 3, 5, 8, 13, 20, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 384, 511, 512)
STABLE = 32  # texts embedded alone and among others
CALIBRATION = 120  # of the texts that ship, and of the user's, to calibrate rounding on
Progress = Callable[[str], None]


def formats() -> tuple[str, ...]:
    """Return the registered formats; imports none of them."""
    return plugins.names(GROUP)


def find_exporter(format: str) -> Exporter:
    """Return the exporter of ``format``; UnknownName if there is none."""
    found: Exporter = plugins.find(GROUP, format)()
    return found


def choose(exporter: Exporter, name: str | None) -> Recipe:
    """Return the recipe called ``name``, or the default one; UnknownName if there is none."""
    by_name = {recipe.name: recipe for recipe in exporter.recipes}
    if name is not None and name not in by_name:
        names = ", ".join(by_name)
        raise UnknownName(f"{exporter.format} has no recipe {name!r}; there are: {names}")
    return by_name[name] if name is not None else exporter.recipes[0]


class Reference:
    """A checkpoint's FP32 runtime, the gate's texts (ours, then the user's) and their vectors."""

    def __init__(self, runtime: Runtime, more: Sequence[str] = ()) -> None:
        self.runtime = runtime
        self.shipped, self.more = [text.text for text in texts.load()], list(more)
        self.texts = [*self.shipped, *self.more]

    @cached_property
    def vectors(self) -> Vectors:
        """The FP32 vectors of `texts`, float32 [n, d], not normalised."""
        return self.runtime.encode(self.texts, prompt="", normalize=False)

    @cached_property
    def samples(self) -> list[list[int]]:
        """Token ids of some of the texts, special ones included, to calibrate rounding on."""
        return [
            self.runtime.tokenize(text)
            for some in (self.shipped, self.more)
            for text in some[:: max(1, len(some) // CALIBRATION)][:CALIBRATION]
        ]


@contextlib.contextmanager
def open_reference(checkpoint: Checkpoint, texts: Sequence[str] = ()) -> Iterator[Reference]:
    """Open the FP32 reference of ``checkpoint``; ``texts`` are the user's own, beside ours."""
    opened = plugins.require("asterisk.runtimes.torch", "export").reference(checkpoint)
    with opened as runtime:
        yield Reference(runtime, texts)


def check_name(checkpoint: Checkpoint) -> None:
    """Raise UsageError for a checkpoint whose name cannot be that of an artifact."""
    if not artifact.is_plain_name(checkpoint.name):
        raise UsageError(
            f"a checkpoint called {checkpoint.name!r} cannot be exported: "
            "rename its folder to letters, digits, '.', '_' and '-', 100 at most"
        )


def export(
    checkpoint: Checkpoint,
    format: str,
    recipe_name: str | None,
    out: Path | Callable[[Recipe], Path],
    on_progress: Progress = lambda line: None,
    *,
    reference: Reference | None = None,
) -> Artifact:
    """Export ``checkpoint`` to the folder ``out``, or ``out(recipe)``, and return the artifact.

    ``out`` appears, or is replaced, whole and only after the artifact has passed its gate:
    FidelityError otherwise, which names a larger recipe that would pass. Recipe ``auto`` is the
    smallest one that passes. OutputError where ``out`` cannot be written, UsageError for a model
    that the format cannot hold, MissingExtra where a converter or the engine is not installed.
    """
    check_name(checkpoint)
    exporter = find_exporter(format)
    if recipe_name != AUTO:
        recipe = choose(exporter, recipe_name)
    if reference is None:
        with open_reference(checkpoint) as opened:
            return export(checkpoint, format, recipe_name, out, on_progress, reference=opened)
    attempt = _Attempt(checkpoint, exporter, reference, on_progress)
    folder = out if callable(out) else lambda recipe: out
    if recipe_name == AUTO:
        return attempt.smallest(folder)
    try:
        return attempt(recipe, folder(recipe))
    except FidelityError as failure:
        advice = attempt.advice(recipe)
        raise FidelityError(f"{format} {recipe.name}: {failure}; {advice}") from None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Exports a checkpoint in one format, under any of its recipes."""

    checkpoint: Checkpoint
    exporter: Exporter
    reference: Reference
    on_progress: Progress

    @property
    def by_size(self) -> list[Recipe]:
        return sorted(self.exporter.recipes, key=lambda recipe: recipe.bits)

    def __call__(self, recipe: Recipe, out: Path) -> Artifact:
        """Write the artifact to ``out``; FidelityError if it does not pass the gate."""
        checkpoint, exporter, reference = self.checkpoint, self.exporter, self.reference
        limits = exporter.thresholds(recipe, checkpoint.config.num_layers)
        with replacing_folder(out, artifact.is_artifact) as staging:
            self.report(recipe, "writing")
            written = exporter.write(checkpoint, recipe, staging, reference.samples)
            tokenizer, contents = checkpoint.tokenizer.compile()
            (staging / tokenizer).write_bytes(contents)
            golden = json.dumps(reference.texts[:GOLDEN], indent=1, ensure_ascii=False)
            (staging / artifact.GOLDEN_TEXTS).write_text(golden, "utf-8")
            vectors = reference.vectors[:GOLDEN]
            lengths = np.linalg.norm(vectors.astype("f8"), axis=1, keepdims=True)
            np.save(staging / artifact.GOLDEN_VECTORS, (vectors / lengths).astype(np.float32))
            manifest = artifact.Manifest(
                format=exporter.format,
                recipe=recipe.name,
                name=checkpoint.name,
                entry=written.entry,
                tokenizer=tokenizer,
                model=checkpoint.config,
                fingerprint=checkpoint.fingerprint,
                compatible_with=(checkpoint.fingerprint, *checkpoint.compatible_with),
                prompts=checkpoint.prompts,
                default_prompt_name=checkpoint.default_prompt_name,
                similarity=checkpoint.similarity,
                source=checkpoint.source,
                files={path.name: artifact.sha256(path) for path in sorted(staging.iterdir())},
                thresholds=limits,
                fidelity={},
                versions={"asterisk-edge": __version__, **written.versions},
            )
            description = staging / artifact.MANIFEST
            description.write_text(manifest.to_json(), "utf-8")
            with open_runtime(artifact.open_artifact(staging)) as candidate:
                figures = gate(candidate, reference, limits, lambda line: self.report(recipe, line))
            # Rounded: a last bit that differs between machines must not change the manifest.
            rounded = {name: round(value, 6) for name, value in figures.items()}
            description.write_text(replace(manifest, fidelity=rounded).to_json(), "utf-8")
        return artifact.open_artifact(out)

    def report(self, recipe: Recipe, line: str) -> None:
        self.on_progress(f"{self.exporter.format} {recipe.name}: {line}")

    def smallest(self, folder: Callable[[Recipe], Path]) -> Artifact:
        """Export under the smallest recipe that passes."""
        refused: dict[str, UsageError | FidelityError] = {}
        for recipe in self.by_size:
            try:
                return self(recipe, folder(recipe))
            except (FidelityError, UsageError) as failure:
                refused[recipe.name] = failure
                self.report(recipe, one_line(failure))
        first = next(iter(refused.values()))
        if isinstance(first, UsageError) and len(set(map(str, refused.values()))) == 1:
            raise first  # it is about the model, whatever the recipe
        reasons = "; ".join(f"{name}: {one_line(failure)}" for name, failure in refused.items())
        raise FidelityError(f"no recipe of {self.exporter.format} passes; {reasons}")

    def advice(self, refused: Recipe) -> str:
        """Say which larger recipe would pass."""
        for recipe in self.by_size:
            if recipe.bits > refused.bits:
                self.report(recipe, "checking whether it would pass")
                passes = contextlib.suppress(FidelityError, UsageError)
                with tempfile.TemporaryDirectory() as scratch, passes:
                    self(recipe, Path(scratch) / "artifact")
                    return f"recipe {recipe.name} would pass"
        return "no larger recipe would pass"


def gate(
    candidate: Runtime,
    reference: Reference,
    limits: Thresholds,
    on_progress: Progress = lambda line: None,
) -> dict[str, float]:
    """Compare ``candidate`` with the FP32 ``reference``, text by text and at every length.

    Returns the figures. FidelityError names the first one outside ``limits``, a token id that
    differs, or a vector that depends on what is embedded with it.
    """
    some, truth = reference.texts, reference.runtime
    on_progress(f"comparing {len(some)} texts with FP32")
    for text in some:
        if candidate.tokenize(text) != truth.tokenize(text):
            raise FidelityError(f"token ids differ for {text[:40]!r}")
    ours = candidate.encode(some, prompt="", normalize=False)
    if not (np.isfinite(ours).all() and ours.any(axis=1).all()):
        raise FidelityError("a vector is not finite, or all zeros")
    figures = compare(ours, reference.vectors)
    for name in ("cosine_mean", "cosine_min", "overlap_at_10"):
        found, least = getattr(figures, name), getattr(limits, name)
        if not found >= least:
            raise FidelityError(f"{name} {found:.5f} is below the recipe's {least}")
    lowest = _lowest_by_length(candidate, truth, some)
    if not lowest >= limits.cosine_min:  # also when it is not a number
        raise FidelityError(
            f"cosine at some length from 1 to {truth.longest} is {lowest:.5f}, "
            f"below {limits.cosine_min}"
        )
    for index in reversed(range(min(STABLE, len(some)))):
        alone = candidate.encode(some[index], prompt="", normalize=False)
        if not np.array_equal(alone, ours[index]):
            raise FidelityError(f"the vector of {some[index][:40]!r} depends on its neighbours")
    return {**asdict(figures), "cosine_min_by_length": lowest}


def _lowest_by_length(candidate: Runtime, truth: Runtime, some: Sequence[str]) -> float:
    """Return the lowest cosine over stretches of the texts' tokens, one of each length."""
    tokenizer = truth.tokenizer
    specials = len(tokenizer.prefix) + len(tokenizer.suffix)
    stream = [token for text in some for token in tokenizer.encode(text, truth.longest)]
    cosines = []
    for index, length in enumerate(LENGTHS):
        if specials <= length <= truth.longest:
            content = stream[index * 97 :][: length - specials]
            ids = tokenizer.with_special_tokens(content)
            x, y = (each.embed_ids(ids).astype("f8") for each in (candidate, truth))
            lengths = np.sqrt((x @ x) * (y @ y))
            cosines.append(float(x @ y / lengths) if lengths else 0.0)
    return float(np.min(cosines))  # numpy's minimum keeps what is not a number
