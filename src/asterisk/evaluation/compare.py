"""Scores and their paired resamples, compared between columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from asterisk.evaluation.report import Cell, Difference, RowOf

Draws = npt.NDArray[np.float64]
INTERVAL = (2.5, 97.5)  # percentiles


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
        _row(it, baseline, teacher, by_task.get((it.symmetric or "", it.metric))) for it in measured
    ]


def averages(
    measured: Sequence[Measured], *, baseline: str, teacher: str | None = None
) -> list[RowOf]:
    """Return a row for each group, over the columns that have all of its tasks."""
    groups: dict[str, list[Measured]] = {}
    for it in measured:
        if it.group is not None:
            groups.setdefault(it.group, []).append(it)
    means = {name: _mean(name, some) for name, some in groups.items()}
    rows = []
    for mean in means.values():
        symmetric = means.get(mean.symmetric) if mean.symmetric else None
        rows.append(_row(mean, baseline, teacher, symmetric))
    return rows


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


def _mean(name: str, some: Sequence[Measured]) -> Measured:
    symmetric = name.rsplit(", ", 1)[0] if some[0].symmetric else None
    mean = Measured("average", some[0].metric, name, len(some), symmetric)
    if len({it.metric for it in some}) > 1:
        mean.metric = "mean"
    for column in some[0].scores:
        if all(column in it.scores for it in some):
            score = float(np.mean([it.scores[column] for it in some]))
            mean.add(column, score, np.mean([it.draws[column] for it in some], axis=0))
    return mean


def _row(it: Measured, baseline: str, teacher: str | None, symmetric: Measured | None) -> RowOf:
    row = RowOf(it.task, it.metric, it.group, it.items)
    # An asymmetric score is compared with what the teacher reaches alone.
    reference: Mapping[str, float] = it.scores if symmetric is None else symmetric.scores
    best = None if teacher is None else reference.get(teacher)
    for column, score in it.scores.items():
        gap = gain = None
        if column != baseline and baseline in it.scores:
            gap = difference(score, it.draws[column], it.scores[baseline], it.draws[baseline])
        if symmetric is not None and column in symmetric.scores:
            gain = difference(
                score, it.draws[column], symmetric.scores[column], symmetric.draws[column]
            )
        row.cells[column] = Cell(score, gap, 100 * score / best if best else None, gain)
    return row
