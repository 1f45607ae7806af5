"""A run over all recipes as a page of Markdown, and as a picture."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asterisk.bench.cells import MB, NONE, ms
from asterisk.bench.charts import canvas, png
from asterisk.bench.pareto import TIMED, Pareto, Recipe
from asterisk.bench.render import grid

T = TypeVar("T")


class Cost(Protocol):
    """What was measured of a row: bytes of its files and of a process, milliseconds by tokens."""

    size: int
    pss: int | None
    ms: dict[str, float]


LEGEND = (
    "Sorted by size. **Front**: no other recipe of any format is at least as good in size, memory, "
    "both times and mean cosine and better in one of them, by the exact figures. MB is 10^6 bytes. "
    "Size is the whole artifact, tokenizer and golden vectors included. PSS is of a process of its "
    "own after 200 texts of 20 tokens. Times are medians of `encode(text)` on one thread. Cosine "
    "and overlap are the export gate's, against FP32 PyTorch of the same checkpoint."
)
QUALITY = "Spearman is STS-B's, nDCG@10 the mean over the retrieval sets, both times 100, {split}."


def page(run: Pareto, picture: str | None = None) -> str:
    """Return the page; ``picture`` is the file name of the plot beside it."""
    parts = [
        "# Recipes: what each costs and gives",
        f"{made_by(run.settings['argv'])} {_where(run)}",
        _table(run),
        LEGEND,
    ]
    if run.settings["data"]:
        parts.append(QUALITY.format(split=f"{run.settings['split']} split"))
    if picture:
        parts.append(f"![size against time, fidelity as colour]({picture})")
    return "\n\n".join([*parts, *warnings(run.warnings, run.failed)]) + "\n"


def made_by(argv: Sequence[str]) -> str:
    """Say which command made a page."""
    return f"Made by `{command(argv)}`; the figures are in the JSON file beside it."


def command(argv: Sequence[str]) -> str:
    """Return the command as a reader would type it: absolute paths are the writer's own."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    return shlex.join(["asterisk-bench", *shown])


def warnings(warned: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """Return what a reader must know of a run, as paragraphs of the page."""
    lacking = [f"{name}: {line}" for name, line in sorted(failed.items())]
    return [
        f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines)
        for title, lines in (("Warnings", warned), ("Not in the table, or in part", lacking))
        if lines
    ]


def _where(run: Pareto) -> str:
    checkpoint = run.checkpoint
    name = f"**{checkpoint['name']}** ({checkpoint['fingerprint'][:12]}) on "
    return name + where(run.machine, run.settings["effort"])


def where(machine: Mapping[str, Any], effort: Mapping[str, Any]) -> str:
    """Say on what a run was measured."""
    what = [
        machine["cpu"],
        f"{machine['cores']} cores",
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    return f"{', '.join(what)}; processes a time: {effort['processes']}."


def _table(run: Pareto) -> str:
    shown: list[tuple[str, Callable[[Recipe], str]]] = [
        ("runtime", lambda it: it.title),
        ("recipe", lambda it: it.recipe),
        ("front", lambda it: "yes" if it.front else ""),
        ("size, MB", size),
        ("PSS, MB", pss),
        *times(),
        ("cosine mean", _figure("cosine_mean", 5)),
        ("min", _figure("cosine_min", 4)),
        ("overlap@10", _figure("overlap_at_10", 3)),
        ("STS-B Spearman", _quality("Spearman")),
        ("retrieval nDCG@10", _quality("nDCG@10")),
    ]
    ordered = sorted(run.recipes, key=lambda it: (it.size, it.format, it.recipe))
    return columns(shown, ordered, left=3)


def columns(shown: Sequence[tuple[str, Callable[[T], str]]], things: Sequence[T], left: int) -> str:
    """Return a Markdown table of headings and what to show; the first ``left`` stand leftwards."""
    lines = [[show(thing) for _, show in shown] for thing in things]
    return grid([[heading for heading, _ in shown], *lines], range(left))


def size(it: Cost) -> str:
    """Show the bytes of its files."""
    return f"{it.size / MB:.1f}"


def pss(it: Cost) -> str:
    """Show the bytes that a process of it takes."""
    return NONE if it.pss is None else f"{it.pss / MB:.1f}"


def times() -> list[tuple[str, Callable[[Cost], str]]]:
    """Return a heading and what to show for each length that is `TIMED`."""

    def show(it: Cost, tokens: str) -> str:
        return ms(it.ms[tokens]) if tokens in it.ms else NONE

    return [(f"{tokens} tokens, ms", partial(show, tokens=tokens)) for tokens in TIMED]


def _figure(name: str, digits: int) -> Callable[[Recipe], str]:
    return lambda it: f"{it.fidelity[name]:.{digits}f}" if name in it.fidelity else NONE


def _quality(name: str) -> Callable[[Recipe], str]:
    return lambda it: f"{it.quality[name]:.2f}" if name in it.quality else NONE


def plot(run: Pareto) -> bytes | None:
    """Return a PNG of size against time at 20 tokens; None without figures.

    MissingExtra without matplotlib.
    """
    known = [it for it in run.recipes if it.costs() is not None]
    if not known:
        return None
    with canvas(576, 360, layout="constrained") as figure:
        from matplotlib import ticker

        axes = figure.subplots()
        places = [(it.size / MB, it.ms[TIMED[0]]) for it in known]
        nines = [-math.log10(max(1 - it.fidelity["cosine_mean"], 1e-7)) for it in known]
        sizes = [90 if it.front else 35 for it in known]
        dots = axes.scatter(*zip(*places, strict=True), c=nines, s=sizes, cmap="viridis")
        turned = {"size": 8, "rotation": 15, "rotation_mode": "anchor"}
        for it, place in zip(known, places, strict=True):
            name = f"{it.format} {it.recipe}"
            axes.annotate(name, place, (6, 2), textcoords="offset points", **turned)
        axes.set(xlabel="size, MB", ylabel=f"{TIMED[0]} tokens, ms", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(ticker.NullLocator())
            axis.set_major_formatter("{x:g}")
        axes.margins(0.15)  # of labels too
        figure.colorbar(dots, label="nines of mean cosine to FP32: -log10(1 - cosine)")
        return png(figure)
