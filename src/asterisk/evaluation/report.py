"""What an evaluation found, as one versioned value; the table is rendered from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


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
            raise ValueError(f"an evaluation that is damaged: {failure}") from None


def _row(values: dict[str, Any]) -> RowOf:
    cells = {label: _cell(cell) for label, cell in values.pop("cells").items()}
    return RowOf(**values, cells=cells)


def _cell(values: dict[str, Any]) -> Cell:
    for name in ("difference", "asymmetric"):
        if values.get(name) is not None:
            values[name] = Difference(**values[name])
    return Cell(**values)
