"""Models beside one another: how good each is through its artifact, and what it costs.

``python -m benchmarks.models PAGE`` takes every checkpoint of the project, all-MiniLM-L6-v2, one of
yours and the peers; each is exported, measured in turns in one run, and evaluated through what was
measured. It writes a Markdown page, its JSON, from which the page is rendered, and with matplotlib
a plot. As in `asterisk.bench.runner`, this process imports no engine, and no numpy, before the last
measurement.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from asterisk.bench import collect, machine, plan, runner
from asterisk.bench.charts import SERIES, canvas
from asterisk.bench.columns import MB, NONE
from asterisk.bench.peers import MINILM
from asterisk.bench.plan import Row
from asterisk.bench.runner import Progress, Request, Work, measure
from asterisk.cli.common import run as run_command
from asterisk.common.errors import EngineError
from asterisk.common.files import shipped_checkpoint
from asterisk.common.terminal import report
from benchmarks import pages
from benchmarks.pages import TIMED

STUDY = "benchmarks.models"
SCHEMA = 1
METRICS = ("STS-B", "retrieval", "classification")


QUALITY = (
    "Quality is of the row's own vectors, through its engine, on the {split} split: Spearman of "
    "STS-B, mean nDCG@10 of retrieval, mean accuracy of a linear probe, times 100; in brackets and "
    "in the last column as a share of {teacher}'s in FP32 under sentence-transformers. "
)
LEGEND = (
    "MB is 10^6 bytes. Size is all of the model's files. PSS is of a process of its own after 200 "
    "texts of 20 tokens. Times are medians of `encode(text)` on one thread."
)


@dataclass(slots=True)
class Entry:
    """One model in one form, as it was measured; None or absent is a figure that is not there.

    ``size`` of its files and ``pss`` of a process after 200 texts of 20 tokens, in bytes; ``ms``
    the median of one text on one thread by tokens; ``quality`` by `METRICS`: Spearman, mean
    nDCG@10 and mean accuracy of a linear probe, times 100.
    """

    model: str
    title: str
    recipe: str
    size: int
    dimensions: int
    pss: int | None = None
    ms: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)

    def share(self, teacher: Mapping[str, float]) -> float | None:
        """Return the mean over `METRICS` as a share of ``teacher``'s; None if one is missing."""
        if not all(metric in self.quality and teacher.get(metric) for metric in METRICS):
            return None
        return fmean(self.quality[metric] / teacher[metric] for metric in METRICS)


@dataclass(slots=True)
class Comparison:
    """A whole run: what was asked, on which machine, what came out.

    ``teacher`` is the name and the quality, in FP32, of the model that shares are of; ``failed``
    has a line for each model that could not be prepared, measured or evaluated.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    warnings: list[str]
    teacher: str
    truth: dict[str, float]
    entries: list[Entry]
    failed: dict[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the run's text."""
        return pages.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Read what `to_json` wrote; ValueError for another schema."""
        values = pages.read_json(text, "comparison", SCHEMA)
        entries: list[Mapping[str, Any]] = values.pop("entries")
        return cls(entries=[Entry(**entry) for entry in entries], **values)


def measure_models(
    request: Request,
    models: Mapping[str, str | Path],
    data: Sequence[Path],
    split: str,
    progress: Progress,
) -> Comparison:
    """Measure ``models``, folders or names by name, in ``request``'s formats, and its peers.

    ``data`` are evaluation sets. What fails is a line of the run; EngineError if nothing is left.
    """
    before = machine.state()
    rows, failed, prepared = _rows(request, models)
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    cells = plan.cells([*rows], (1,), request.effort.processes, request.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), {name: row for name, (_, row) in rows.items()}, prepared, request)
        answers, failures = measure(work, cells, progress)
    entries = []
    for name, (model, row) in rows.items():
        if lines := failures[name]:
            failed[name] = "; ".join(lines)
        found = collect.collect(row, answers[name], len(prepared["mixed"]))
        entries.append(
            Entry(
                model,
                row.title,
                row.recipe,
                row.size,
                0,
                found.memory["steady"]["pss"] if found.memory else None,
                {tokens: latency.p50 for tokens, latency in found.latency.items()},
            )
        )
    after = machine.state()
    measured = [row for _, row in rows.values()]
    truth: dict[str, float] = {}
    if data:
        ask = pages.Quality(data, split, progress, failed, METRICS)
        truth = ask(MINILM, {"path": MINILM})[0]
        for entry, (name, (_, row)) in zip(entries, rows.items(), strict=True):
            opener = {"opener": row.opener, "python": row.python} if row.peer else {}
            entry.quality, entry.dimensions = ask(name, {"path": row.path, **opener})
    return Comparison(
        settings=pages.settings(request, data, split),
        machine=runner.with_versions(machine.describe(runner.packages_of(measured)), measured),
        warnings=machine.warnings(before, after),
        teacher=MINILM,
        truth=truth,
        entries=entries,
        failed=failed,
    )


def _rows(
    request: Request, models: Mapping[str, str | Path]
) -> tuple[dict[str, tuple[str, Row]], dict[str, str], dict[str, Any]]:
    """Return each row with its model by a name, what failed, and the texts to measure with."""
    rows: dict[str, tuple[str, Row]] = {}
    failed: dict[str, str] = {}
    prepared: dict[str, Any] = {}
    for number, (model, folder) in enumerate(models.items()):
        # The peers come once, with the first.
        peers = request.peers if number == 0 else ()
        wanted = replace(request, checkpoint=folder, peers=peers)
        prepared = runner.prepare(wanted, without_reference=True)
        for values in prepared["rows"]:
            row = Row.from_dict(values)
            name = row.name if row.peer else f"{model}-{row.name}"
            title = row.title if row.model else f"{model}, {row.title}" if row.peer else model
            rows[name] = title, replace(row, name=name)
        failed |= {f"{model} {name}": line for name, line in prepared["failed"].items()}
    return rows, failed, prepared


def page(run: Comparison, picture: str | None = None) -> str:
    """Return the page; ``picture`` is the file name of the plot beside it."""
    where = pages.where(run.machine, run.settings["effort"])
    parts = [
        "# Models: what each gives and costs",
        f"{pages.made_by(STUDY, run.settings['argv'])} {where}",
        table(run),
        (QUALITY if run.settings["data"] else "").format(
            split=run.settings["split"], teacher=run.teacher
        )
        + LEGEND,
    ]
    if picture:
        parts.append(f"![quality over time, memory as the dot]({picture})")
    return "\n\n".join([*parts, *pages.warnings(run.warnings, run.failed)]) + "\n"


def table(run: Comparison) -> str:
    """Return the table, fastest first."""
    shown: list[tuple[str, Callable[[Entry], str]]] = [
        ("model", lambda it: it.model),
        ("engine", lambda it: it.title if it.title != it.model else ""),
        ("recipe", lambda it: it.recipe),
        ("d", lambda it: str(it.dimensions or NONE)),
        *((metric, _score(run, metric)) for metric in METRICS),
        *pages.times(),
        ("PSS, MB", pages.pss),
        ("size, MB", pages.size),
        ("of the teacher", lambda it: _share(it.share(run.truth))),
    ]
    ordered = sorted(run.entries, key=lambda it: it.ms.get(TIMED[0], float("inf")))
    return pages.columns(shown, ordered, left=3)


def _score(run: Comparison, metric: str) -> Callable[[Entry], str]:
    def show(entry: Entry) -> str:
        if metric not in entry.quality:
            return NONE
        share = entry.quality[metric] / run.truth[metric] if run.truth.get(metric) else None
        suffix = "" if share is None else f" ({_share(share)})"
        return f"{entry.quality[metric]:.1f}{suffix}"

    return show


def _share(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}%"


def plot(run: Comparison) -> bytes | None:
    """Return a PNG of quality over milliseconds; None without figures.

    MissingExtra without matplotlib.
    """
    shown = [
        (it, share)
        for it in run.entries
        if (share := it.share(run.truth)) is not None and it.pss and TIMED[0] in it.ms
    ]
    if not shown:
        return None
    with canvas(576, 360, layout="constrained") as figure:
        axes = figure.subplots()
        for number, (it, share) in enumerate(shown):
            at = it.ms[TIMED[0]], 100 * share
            # What nothing is faster and better than has room above and left of it, the rest below.
            best = not any(o.ms[TIMED[0]] < at[0] and other > share for o, other in shown)
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
        return pages.png(figure)


def models(own: str | None) -> dict[str, str | Path]:
    """Return the models that are compared, folders or names by name."""
    shipped = sorted(shipped_checkpoint().parent.iterdir())
    found: dict[str, str | Path] = {folder.name: folder for folder in shipped if folder.is_dir()}
    return found | {MINILM: MINILM} | ({} if own is None else {Path(own).resolve().name: own})


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    description = "Measure every checkpoint of the project, all-MiniLM-L6-v2, yours and the peers."
    return pages.parser(f"python -m {STUDY}", description)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""

    def command(arguments: argparse.Namespace) -> None:
        asked = pages.request(arguments, without_peers=False)
        chosen = models(arguments.checkpoint)
        run = measure_models(asked, chosen, arguments.data, arguments.split, report)
        pages.write(arguments.page, run, page, plot)

    return run_command(parser(), command, argv)


if __name__ == "__main__":
    sys.exit(main())
