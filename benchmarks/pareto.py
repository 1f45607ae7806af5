"""Every recipe of every format: what each costs and gives, and which nothing else beats.

``python -m benchmarks.pareto PAGE`` exports, measures and, with ``--data``, evaluates every recipe.
It writes a Markdown page, its JSON, from which the page is rendered, and with matplotlib a plot. As
in `asterisk.bench.runner`, this process imports no engine, and no numpy, before the last
measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, runner
from asterisk.bench.charts import canvas
from asterisk.bench.columns import MB, NONE
from asterisk.bench.plan import Row
from asterisk.bench.results import RowResult
from asterisk.bench.runner import Progress, Request, Work, measure
from asterisk.cli.common import run as run_command
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report
from benchmarks import pages
from benchmarks.pages import TIMED

STUDY = "benchmarks.pareto"
SCHEMA = 1
MANIFEST = "artifact.json"


LEGEND = (
    "Sorted by size. **Front**: no other recipe of any format is at least as good in size, memory, "
    "both times and mean cosine and better in one of them, by the exact figures. MB is 10^6 bytes. "
    "Size is the whole artifact, tokenizer and golden vectors included. PSS is of a process of its "
    "own after 200 texts of 20 tokens. Times are medians of `encode(text)` on one thread. Cosine "
    "and overlap are the export gate's, against FP32 PyTorch of the same checkpoint."
)
QUALITY = "Spearman is STS-B's, nDCG@10 the mean over the retrieval sets, both times 100, {split}."


@dataclass(slots=True)
class Recipe:
    """One recipe of one format, as it was measured; None is a figure that is not there.

    ``size`` of the artifact and ``pss`` of a process after 200 texts of 20 tokens, in bytes;
    ``ms`` the median of one text on one thread by tokens; ``fidelity`` the gate's figures;
    ``quality`` Spearman and nDCG@10 times 100 by name. ``front`` is set by `mark`.
    """

    format: str
    title: str
    recipe: str
    size: int
    pss: int | None = None
    ms: dict[str, float] = field(default_factory=dict)
    fidelity: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    front: bool = False

    def costs(self) -> tuple[float, ...] | None:
        """Return what should be small: size, memory, times, distance from FP32; None if unknown."""
        times = [self.ms.get(tokens) for tokens in TIMED]
        mean = self.fidelity.get("cosine_mean")
        figures = [cost for cost in (self.size, self.pss, *times) if cost is not None]
        if mean is None or len(figures) < 2 + len(TIMED):
            return None
        return (*figures, 1 - mean)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Tell whether ``one`` is at least as small everywhere and smaller somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def mark(recipes: Iterable[Recipe]) -> None:
    """Set ``front`` where no other recipe dominates; a recipe that lacks a figure is never on it.

    Nor does it keep another off.
    """
    measured = [(recipe, costs) for recipe in recipes if (costs := recipe.costs()) is not None]
    for recipe, costs in measured:
        recipe.front = not any(dominates(other, costs) for _, other in measured)


@dataclass(slots=True)
class Pareto:
    """A whole run: what was asked, on which machine, what came out.

    ``failed`` has a line for each recipe that could not be exported, measured or evaluated.
    """

    checkpoint: dict[str, str]
    settings: dict[str, Any]
    machine: dict[str, Any]
    warnings: list[str]
    recipes: list[Recipe]
    failed: dict[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the run's text."""
        return pages.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Pareto:
        """Read what `to_json` wrote; ValueError for another schema."""
        values = pages.read_json(text, "page", SCHEMA)
        recipes: list[Mapping[str, Any]] = values.pop("recipes")
        return cls(recipes=[Recipe(**recipe) for recipe in recipes], **values)


def measure_recipes(
    request: Request, data: Sequence[Path], split: str, progress: Progress
) -> Pareto:
    """Carry out ``request`` for every recipe of its runtimes; ``data`` are evaluation sets.

    A recipe that its gate refuses, or that lacks an extra, is a line of the run. EngineError if
    that leaves none.
    """
    before = machine.state()
    prepared = runner.prepare(request, every_recipe=True)
    failed: dict[str, str] = prepared["failed"]
    rows = [Row.from_dict(values) for values in prepared["rows"]]
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    cells = plan.cells([row.name for row in rows], (1,), request.effort.processes, request.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), {row.name: row for row in rows}, prepared, request)
        answers, failures = measure(work, cells, progress)
    recipes = []
    for row in rows:
        found = collect.collect(row, answers[row.name], len(prepared["mixed"]))
        recipes.append(_recipe(row, found))
        if lines := failures[row.name]:
            failed[row.name] = "; ".join(lines)
    after = machine.state()
    if data:
        quality = pages.Quality(data, split, progress, failed)
        for row, recipe in zip(rows, recipes, strict=True):
            recipe.quality = quality(row.name, {"path": row.path})[0]
    mark(recipes)
    return Pareto(
        checkpoint=prepared["checkpoint"],
        settings=pages.settings(request, data, split),
        machine=machine.describe(runner.packages_of(rows)),
        warnings=machine.warnings(before, after),
        recipes=recipes,
        failed=failed,
    )


def _recipe(row: Row, found: RowResult) -> Recipe:
    manifest = json.loads((Path(row.path) / MANIFEST).read_text("utf-8"))
    return Recipe(
        format=manifest["format"],
        title=row.title,
        recipe=row.recipe,
        size=row.size,
        pss=found.memory["steady"]["pss"] if found.memory else None,
        ms={tokens: latency.p50 for tokens, latency in found.latency.items()},
        fidelity=manifest["fidelity"],
    )


def page(run: Pareto, picture: str | None = None) -> str:
    """Return the page; ``picture`` is the file name of the plot beside it."""
    parts = [
        "# Recipes: what each costs and gives",
        f"{pages.made_by(STUDY, run.settings['argv'])} {_where(run)}",
        _table(run),
        LEGEND,
    ]
    if run.settings["data"]:
        parts.append(QUALITY.format(split=f"{run.settings['split']} split"))
    if picture:
        parts.append(f"![size against time, fidelity as colour]({picture})")
    return "\n\n".join([*parts, *pages.warnings(run.warnings, run.failed)]) + "\n"


def _where(run: Pareto) -> str:
    checkpoint = run.checkpoint
    name = f"**{checkpoint['name']}** ({checkpoint['fingerprint'][:12]}) on "
    return name + pages.where(run.machine, run.settings["effort"])


def _table(run: Pareto) -> str:
    shown: list[tuple[str, Callable[[Recipe], str]]] = [
        ("runtime", lambda it: it.title),
        ("recipe", lambda it: it.recipe),
        ("front", lambda it: "yes" if it.front else ""),
        ("size, MB", pages.size),
        ("PSS, MB", pages.pss),
        *pages.times(),
        ("cosine mean", _figure("cosine_mean", 5)),
        ("min", _figure("cosine_min", 4)),
        ("overlap@10", _figure("overlap_at_10", 3)),
        ("STS-B Spearman", _quality("Spearman")),
        ("retrieval nDCG@10", _quality("nDCG@10")),
    ]
    ordered = sorted(run.recipes, key=lambda it: (it.size, it.format, it.recipe))
    return pages.columns(shown, ordered, left=3)


def _figure(name: str, digits: int) -> Callable[[Recipe], str]:
    return lambda it: f"{it.fidelity[name]:.{digits}f}" if name in it.fidelity else NONE


def _quality(name: str) -> Callable[[Recipe], str]:
    return lambda it: f"{it.quality[name]:.2f}" if name in it.quality else NONE


def plot(run: Pareto) -> bytes | None:
    """Return a PNG of size against time at 20 tokens; None without figures.

    MissingExtra without matplotlib.
    """
    shown = [it for it in run.recipes if it.costs() is not None]
    if not shown:
        return None
    with canvas(576, 360, layout="constrained") as figure:
        from matplotlib import ticker

        axes = figure.subplots()
        points = [(it.size / MB, it.ms[TIMED[0]]) for it in shown]
        nines = [-math.log10(max(1 - it.fidelity["cosine_mean"], 1e-7)) for it in shown]
        sizes = [90 if it.front else 35 for it in shown]
        dots = axes.scatter(*zip(*points, strict=True), c=nines, s=sizes, cmap="viridis")
        turned = {"size": 8, "rotation": 15, "rotation_mode": "anchor"}
        for it, point in zip(shown, points, strict=True):
            name = f"{it.format} {it.recipe}"
            axes.annotate(name, point, (6, 2), textcoords="offset points", **turned)
        axes.set(xlabel="size, MB", ylabel=f"{TIMED[0]} tokens, ms", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(ticker.NullLocator())
            axis.set_major_formatter("{x:g}")
        axes.margins(0.15)  # of labels too
        figure.colorbar(dots, label="nines of mean cosine to FP32: -log10(1 - cosine)")
        return pages.png(figure)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    return pages.parser(f"python -m {STUDY}", "Measure every recipe of every format.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""

    def command(arguments: argparse.Namespace) -> None:
        asked = pages.request(arguments, without_peers=True)
        run = measure_recipes(asked, arguments.data, arguments.split, report)
        pages.write(arguments.page, run, page, plot)

    return run_command(parser(), command, argv)


if __name__ == "__main__":
    sys.exit(main())
