"""Models beside one another as a page of Markdown, and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asterisk.bench.cells import MB, NONE
from asterisk.bench.charts import SERIES, canvas, png
from asterisk.bench.models import METRICS, Comparison, Entry
from asterisk.bench.pareto import TIMED
from asterisk.bench.pareto_page import (
    columns,
    made_by,
    pss,
    size,
    times,
    warnings,
    where,
)

QUALITY = (
    "Quality is of the row's own vectors, through its engine, on the {split} split: Spearman of "
    "STS-B, mean nDCG@10 of retrieval, mean accuracy of a linear probe, times 100; in brackets and "
    "in the last column as a share of {teacher}'s in FP32 under sentence-transformers. "
)
LEGEND = (
    "MB is 10^6 bytes. Size is all of the model's files. PSS is of a process of its own after 200 "
    "texts of 20 tokens. Times are medians of `encode(text)` on one thread."
)


def page(run: Comparison, picture: str | None = None) -> str:
    """Return the page; ``picture`` is the file name of the plot beside it."""
    parts = [
        "# Models: what each gives and costs",
        f"{made_by(run.settings['argv'])} {where(run.machine, run.settings['effort'])}",
        table(run),
        (QUALITY if run.settings["data"] else "").format(
            split=run.settings["split"], teacher=run.teacher
        )
        + LEGEND,
    ]
    if picture:
        parts.append(f"![quality over time, memory as the dot]({picture})")
    return "\n\n".join([*parts, *warnings(run.warnings, run.failed)]) + "\n"


def table(run: Comparison) -> str:
    """Return the table, fastest first."""
    shown: list[tuple[str, Callable[[Entry], str]]] = [
        ("model", lambda it: it.model),
        ("engine", lambda it: it.title if it.title != it.model else ""),
        ("recipe", lambda it: it.recipe),
        ("d", lambda it: str(it.dimensions or NONE)),
        *((metric, _score(run, metric)) for metric in METRICS),
        *times(),
        ("PSS, MB", pss),
        ("size, MB", size),
        ("of the teacher", lambda it: _share(it.share(run.truth))),
    ]
    ordered = sorted(run.entries, key=lambda it: it.ms.get(TIMED[0], float("inf")))
    return columns(shown, ordered, left=3)


def _score(run: Comparison, metric: str) -> Callable[[Entry], str]:
    def show(entry: Entry) -> str:
        if metric not in entry.quality:
            return NONE
        share = entry.quality[metric] / run.truth[metric] if run.truth.get(metric) else None
        told = "" if share is None else f" ({_share(share)})"
        return f"{entry.quality[metric]:.1f}{told}"

    return show


def _share(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}%"


def plot(run: Comparison) -> bytes | None:
    """Return a PNG of quality over milliseconds; None without figures.

    MissingExtra without matplotlib.
    """
    known = [
        (it, share)
        for it in run.entries
        if (share := it.share(run.truth)) is not None and it.pss and TIMED[0] in it.ms
    ]
    if not known:
        return None
    with canvas(576, 360, layout="constrained") as figure:
        axes = figure.subplots()
        for number, (it, share) in enumerate(known):
            at = it.ms[TIMED[0]], 100 * share
            # What nothing is faster and better than has room above and left of it, the rest below.
            best = not any(o.ms[TIMED[0]] < at[0] and other > share for o, other in known)
            label: dict[str, Any] = (
                {"xytext": (-8, 6), "ha": "right"} if best else {"xytext": (0, -32), "ha": "center"}
            )
            colour = SERIES[number % len(SERIES)]
            axes.scatter(*at, s=4 * (it.pss or 0) / MB, alpha=0.5, color=colour)
            name = it.model if it.title == it.model else f"{it.model}, {it.title}"
            name += f"\n{(it.pss or 0) / MB:.0f} MB"
            axes.annotate(name, at, textcoords="offset points", fontsize=8, **label)
        axes.set(
            xscale="log",
            xlabel=f"{TIMED[0]} tokens, ms on one thread; the dot is the memory, PSS",
            ylabel=f"quality, % of {run.teacher}",
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.4, y=0.2)
        return png(figure)
