"""What an evaluation found: scores compared between columns, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = 1
INTERVAL = (2.5, 97.5)  # percentiles
NONE = "-"
Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """``value`` is a score minus another; 95 % of its paired resamples lie in [low, high]."""

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Tell whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        star = "*" if self.significant else " "
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{star}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One column's score for a row, times 100.

    ``difference`` is to the baseline's cell, None in the baseline's own column and where it has no
    such cell; ``retention`` the per cent of the teacher's score; ``asymmetric`` the difference to
    the same column's symmetric score.
    """

    score: float
    difference: Difference | None = None
    retention: float | None = None
    asymmetric: Difference | None = None


@dataclass(slots=True)
class RowOf:
    """One task, or the average of a group of them, over all columns.

    ``items`` counts what was resampled: texts, pairs, queries; for an average its tasks.
    """

    task: str
    metric: str
    group: str | None
    items: int
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A model under one dimension and precision; ``longest`` is the tokens it reads."""

    label: str
    model: str
    opened_by: str
    dim: int | None
    precision: str
    longest: int | None = None
    fingerprint: str | None = None


@dataclass(slots=True)
class Report:
    """A whole run: what was asked, with what, what came out."""

    settings: dict[str, Any]
    versions: dict[str, str]
    columns: list[Column]
    rows: list[RowOf]
    averages: list[RowOf]
    notes: list[str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the report's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote; ValueError for anything else."""
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            found = values.get("schema") if isinstance(values, dict) else None
            raise ValueError(f"not an evaluation of schema {SCHEMA} but {found}")
        try:
            values["columns"] = [Column(**column) for column in values["columns"]]
            for name in ("rows", "averages"):
                values[name] = [_row(row) for row in values[name]]
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as failure:
            raise ValueError(f"a damaged evaluation: {failure}") from None


def _row(values: dict[str, Any]) -> RowOf:
    cells = values.pop("cells")
    for label, cell in cells.items():
        for name in ("difference", "asymmetric"):
            if cell.get(name) is not None:
                cell[name] = Difference(**cell[name])
        cells[label] = Cell(**cell)
    return RowOf(**values, cells=cells)


@dataclass(slots=True)
class Measured:
    """A task over all columns, each with its score and the scores of B resamples, float64 [B].

    Resample b drew the same items in every column, and in every task over the same set.
    ``symmetric`` names the task that an asymmetric one is the other half of; ``group`` the average
    that it is part of.
    """

    task: str
    metric: str
    group: str | None
    items: int
    symmetric: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    draws: dict[str, Draws] = field(default_factory=dict)

    def add(self, column: str, score: float, draws: Draws) -> None:
        """Take in what was measured for ``column``."""
        self.scores[column] = score
        self.draws[column] = draws


def compare(
    measured: Sequence[Measured], *, baseline: str, teacher: str | None = None
) -> list[RowOf]:
    """Return a row for each task, in order."""
    by_task = {(it.task, it.metric): it for it in measured}
    return [
        _compared(it, baseline, teacher, by_task.get((it.symmetric or "", it.metric)))
        for it in measured
    ]


def averages(
    measured: Sequence[Measured], *, baseline: str, teacher: str | None = None
) -> list[RowOf]:
    """Return a row for each group, over the columns that have all of its tasks."""
    groups: dict[str, list[Measured]] = {}
    for it in measured:
        if it.group is not None:
            groups.setdefault(it.group, []).append(it)
    means: dict[str, Measured] = {}
    for name, some in groups.items():
        metric = some[0].metric if len({it.metric for it in some}) == 1 else "mean"
        symmetric = name.rsplit(", ", 1)[0] if some[0].symmetric else None
        mean = means[name] = Measured("average", metric, name, len(some), symmetric)
        for column in some[0].scores:
            if all(column in it.scores for it in some):
                score = float(np.mean([it.scores[column] for it in some]))
                mean.add(column, score, np.mean([it.draws[column] for it in some], axis=0))
    return [
        _compared(it, baseline, teacher, means.get(it.symmetric or "")) for it in means.values()
    ]


def difference(score: float, draws: Draws, other: float, others: Draws) -> Difference:
    """Return ``score`` minus ``other`` with the 95 % percentile interval of the paired resamples.

    The interval is moved by the resamples' bias (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 10): items that repeat make clusters look purer than they are.
    Identical models differ by exactly 0 in every resample.
    """
    gaps = draws - others
    bias = gaps.mean() - (score - other)
    low, high = np.percentile(gaps, INTERVAL) - bias
    return Difference(score - other, float(low), float(high))


def _compared(
    it: Measured, baseline: str, teacher: str | None, symmetric: Measured | None
) -> RowOf:
    row = RowOf(it.task, it.metric, it.group, it.items)
    # An asymmetric score is compared with what the teacher reaches alone.
    reference: Mapping[str, float] = it.scores if symmetric is None else symmetric.scores
    best = None if teacher is None else reference.get(teacher)

    def minus(other: Measured | None, column: str, theirs: str) -> Difference | None:
        if other is None or theirs not in other.scores:
            return None
        return difference(
            it.scores[column], it.draws[column], other.scores[theirs], other.draws[theirs]
        )

    for column, score in it.scores.items():
        row.cells[column] = Cell(
            score,
            difference=None if column == baseline else minus(it, column, baseline),
            retention=100 * score / best if best else None,
            asymmetric=minus(symmetric, column, column),
        )
    return row


def markdown(report: Report) -> str:
    """Return the tables with what is needed to judge them."""
    settings = report.settings
    rows = [*report.rows, *report.averages]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        f"**{settings['split']} split**, baseline {settings['baseline']}; {versions}.",
        _table(report, _score),
    ]
    if settings["teacher"]:
        parts += [
            f"Retention, per cent of {settings['teacher']}:",
            _table(
                report, lambda cell: NONE if cell.retention is None else f"{cell.retention:.1f}"
            ),
        ]
    if any(cell.asymmetric for row in rows for cell in row.cells.values()):
        parts += [
            "Asymmetric (the teacher's documents) minus symmetric retrieval:",
            _table(report, lambda cell: str(cell.asymmetric or NONE)),
        ]
    parts.append(
        "Scores are times 100. After a score: its difference to the baseline's and the 95 % "
        f"interval of that over {settings['resamples']:,} paired resamples (seed "
        f"{settings['seed']}); * where it excludes 0."
    )
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _score(cell: Cell) -> str:
    score = f"{cell.score:.2f}"
    return score if cell.difference is None else f"{score} {cell.difference}"


def _table(report: Report, show: Callable[[Cell], str]) -> str:
    labels = [column.label for column in report.columns]
    lines = [["task", "metric", "n", *labels]]
    for row in (*report.rows, *report.averages):
        shown = [show(row.cells[label]) if label in row.cells else NONE for label in labels]
        if set(shown) != {NONE}:
            is_average = row in report.averages
            name = f"**{row.group}, {row.task}**" if is_average else row.task
            lines.append([name, row.metric, f"{row.items:,}", *shown])
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in (lines[0], rule, *lines[1:])
    )
