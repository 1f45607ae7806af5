"""What an evaluation found: scores compared between columns, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = 1
INTERVAL = (2.5, 97.5)  # percentiles
NONE = "-"
Scored = tuple[float, npt.NDArray[np.float64]]
"""A score, and the scores of its B resamples, float64 [B]."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A score minus another; 95 % of the paired resamples lie in [low, high]."""

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
    """One column's score for a row, times 100."""

    score: float
    difference: Difference | None = None  # to the baseline's score, in the other columns
    retention: float | None = None  # per cent of the teacher's score
    asymmetric: Difference | None = None  # to the same column's symmetric score


@dataclass(slots=True)
class RowOf:
    """One task, or the average of a group of them, over all columns."""

    task: str
    metric: str
    group: str | None
    items: int  # texts, pairs or queries that were resampled; of an average its tasks
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A model under one dimension and precision."""

    label: str
    model: str
    opened_by: str
    dim: int | None
    precision: str
    longest: int | None = None  # tokens that it reads
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
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"not an evaluation of schema {SCHEMA} but {schema}")
        try:
            values["columns"] = [Column(**column) for column in values["columns"]]
            for name in ("rows", "averages"):
                values[name] = [_row(**row) for row in values[name]]
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as failure:
            raise ValueError(f"a damaged evaluation: {failure}") from None


def _row(cells: dict[str, dict[str, Any]], **values: Any) -> RowOf:
    row = RowOf(**values)
    for label, cell in cells.items():
        for name in ("difference", "asymmetric"):
            if cell.get(name) is not None:
                cell[name] = Difference(**cell[name])
        row.cells[label] = Cell(**cell)
    return row


@dataclass(slots=True)
class Measured:
    """A task with every column's score; resample b drew the same items in all of them."""

    task: str
    metric: str
    group: str | None  # the average that it is part of
    items: int
    symmetric: Measured | None = None  # what an asymmetric task is the other half of
    columns: dict[str, Scored] = field(default_factory=dict)


def compare(
    measured: Sequence[Measured], *, baseline: str, teacher: str | None = None
) -> list[RowOf]:
    """Return a row for each task, in order."""
    rows = []
    for it in measured:
        symmetric = it.symmetric.columns if it.symmetric else {}
        # An asymmetric score is compared with what the teacher reaches alone.
        best = (symmetric or it.columns).get(teacher) if teacher is not None else None
        row = RowOf(it.task, it.metric, it.group, it.items)
        for column, own in it.columns.items():
            other = None if column == baseline else it.columns.get(baseline)
            retention = 100 * own[0] / best[0] if best and best[0] else None
            asymmetric = difference(own, symmetric.get(column))
            row.cells[column] = Cell(own[0], difference(own, other), retention, asymmetric)
        rows.append(row)
    return rows


def averages(measured: Sequence[Measured]) -> list[Measured]:
    """Return the mean of each group, over the columns that have all of its tasks."""
    groups: dict[str, list[Measured]] = {}
    for it in measured:
        if it.group is not None:
            groups.setdefault(it.group, []).append(it)
    means: dict[str | None, Measured] = {}
    for name, some in groups.items():
        metric = some[0].metric if len({it.metric for it in some}) == 1 else "mean"
        symmetric = means.get(some[0].symmetric.group) if some[0].symmetric else None
        mean = means[name] = Measured("average", metric, name, len(some), symmetric)
        for column in some[0].columns:
            if all(column in it.columns for it in some):
                scores, draws = zip(*(it.columns[column] for it in some), strict=True)
                mean.columns[column] = float(np.mean(scores)), np.mean(draws, axis=0)
    return list(means.values())


def difference(own: Scored, other: Scored | None) -> Difference | None:
    """Return ``own`` minus ``other`` with the 95 % percentile interval of the paired resamples.

    The interval is moved by the resamples' bias (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 10): items that repeat make clusters look purer than they are.
    """
    if other is None:
        return None
    value, gaps = own[0] - other[0], own[1] - other[1]
    low, high = np.percentile(gaps, INTERVAL) - (gaps.mean() - value)
    return Difference(value, float(low), float(high))


def markdown(report: Report) -> str:
    """Return the tables with what is needed to judge them."""
    settings = report.settings
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        f"**{settings['split']} split**, baseline {settings['baseline']}; {versions}.",
        _table(
            report, lambda it: f"{it.score:.2f}" + (f" {it.difference}" if it.difference else "")
        ),
    ]
    if settings["teacher"]:
        parts += [
            f"Retention, per cent of {settings['teacher']}:",
            _table(report, lambda it: NONE if it.retention is None else f"{it.retention:.1f}"),
        ]
    rows = (*report.rows, *report.averages)
    if any(cell.asymmetric for row in rows for cell in row.cells.values()):
        parts += [
            "Asymmetric (the teacher's documents) minus symmetric retrieval:",
            _table(report, lambda it: str(it.asymmetric or NONE)),
        ]
    parts.append(
        "Scores are times 100. After a score: its difference to the baseline's and the 95 % "
        f"interval of that over {settings['resamples']:,} paired resamples (seed "
        f"{settings['seed']}); * where it excludes 0."
    )
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _table(report: Report, show: Callable[[Cell], str]) -> str:
    labels = [column.label for column in report.columns]
    lines = [["task", "metric", "n", *labels]]
    named = [(row.task, row) for row in report.rows]
    named += [(f"**{row.group}, {row.task}**", row) for row in report.averages]
    for name, row in named:
        shown = [show(row.cells[label]) if label in row.cells else NONE for label in labels]
        if set(shown) != {NONE}:
            lines.append([name, row.metric, f"{row.items:,}", *shown])
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    # Names stand on the left of their columns, figures on the right.
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths[:2]])
    lines[1] += ["-" * (width - 1) + ":" for width in widths[2:]]
    for line in lines:
        line[:2] = [cell.ljust(width) for cell, width in zip(line, widths[:2], strict=False)]
        line[2:] = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
