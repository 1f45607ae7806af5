"""A run over all recipes as a page of Markdown, and as a picture where matplotlib is installed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from asterisk.bench.cells import MB, NONE, ms
from asterisk.bench.pareto import TIMED, Pareto, Recipe

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
        f"Made by `{command(run)}`; the figures are in the JSON file beside it. {_where(run)}",
        _table(run),
        LEGEND,
    ]
    if run.settings["data"]:
        parts.append(QUALITY.format(split=f"{run.settings['split']} split"))
    if picture:
        parts.append(f"![size against time, fidelity as colour]({picture})")
    for title, lines in (
        ("Warnings", run.warnings),
        ("Not in the table, or in part", _failed(run)),
    ):
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def command(run: Pareto) -> str:
    """Return the command as a reader would type it: absolute paths are the writer's own."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in run.settings["argv"]]
    return shlex.join(["asterisk-bench", *shown])


def _failed(run: Pareto) -> list[str]:
    return [f"{name}: {line}" for name, line in sorted(run.failed.items())]


def _where(run: Pareto) -> str:
    machine, effort = run.machine, run.settings["effort"]
    what = [
        f"**{run.checkpoint['name']}** ({run.checkpoint['fingerprint'][:12]}) on {machine['cpu']}",
        f"{machine['cores']} cores",
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    return f"{', '.join(what)}; processes a time: {effort['processes']}."


def _table(run: Pareto) -> str:
    columns: list[tuple[str, Callable[[Recipe], str]]] = [
        ("runtime", lambda it: it.title),
        ("recipe", lambda it: it.recipe),
        ("front", lambda it: "yes" if it.front else ""),
        ("size, MB", lambda it: f"{it.size / MB:.1f}"),
        ("PSS, MB", lambda it: NONE if it.pss is None else f"{it.pss / MB:.1f}"),
        *((f"{tokens} tokens, ms", _time(tokens)) for tokens in TIMED),
        ("cosine mean", _figure("cosine_mean", 5)),
        ("min", _figure("cosine_min", 4)),
        ("overlap@10", _figure("overlap_at_10", 3)),
        ("STS-B Spearman", _quality("Spearman")),
        ("retrieval nDCG@10", _quality("nDCG@10")),
    ]
    ordered = sorted(run.recipes, key=lambda it: (it.size, it.format, it.recipe))
    lines = [[heading for heading, _ in columns]]
    lines += [[show(recipe) for _, show in columns] for recipe in ordered]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < 3 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(
        "| " + " | ".join(map(_place, line, widths, range(len(line)))) + " |"
        for line in (lines[0], rule, *lines[1:])
    )


def _place(cell: str, width: int, index: int) -> str:
    return cell.ljust(width) if index < 3 else cell.rjust(width)


def _time(tokens: str) -> Callable[[Recipe], str]:
    return lambda it: ms(it.ms[tokens]) if tokens in it.ms else NONE


def _figure(name: str, digits: int) -> Callable[[Recipe], str]:
    return lambda it: f"{it.fidelity[name]:.{digits}f}" if name in it.fidelity else NONE


def _quality(name: str) -> Callable[[Recipe], str]:
    return lambda it: f"{it.quality[name]:.2f}" if name in it.quality else NONE


def plot(run: Pareto) -> bytes | None:
    """Return a PNG of size against time at 20 tokens; None without matplotlib or figures."""
    known = [it for it in run.recipes if it.costs() is not None]
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    if not known:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    nines = [-math.log10(max(1 - it.fidelity["cosine_mean"], 1e-7)) for it in known]
    dots = axes.scatter(
        [it.size / MB for it in known],
        [it.ms[TIMED[0]] for it in known],
        c=nines,
        s=[90 if it.front else 35 for it in known],
        cmap="viridis",
    )
    for it in known:
        where = (it.size / MB, it.ms[TIMED[0]])
        name = f"{it.format} {it.recipe}"
        axes.annotate(
            name,
            where,
            xytext=(6, 2),
            textcoords="offset points",
            fontsize=8,
            rotation=15,
            rotation_mode="anchor",
        )
    axes.set(xlabel="size, MB", ylabel=f"{TIMED[0]} tokens, ms", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter("{x:g}")
    axes.margins(0.15)  # of labels too
    figure.colorbar(dots, label="nines of mean cosine to FP32: -log10(1 - cosine)")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
    return out.getvalue()
