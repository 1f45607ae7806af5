"""What a column is made of, and how figures are shown in its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from asterisk.bench.results import Report, RowResult

NONE = "-"
UNAVAILABLE = "unavailable"
FAILED = "failed"
MB = 1e6
Number = int | float
Show = Callable[[RowResult], str]


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that stand in one table; ``holds`` says which rows it is about."""

    title: str
    note: str
    holds: Callable[[RowResult], bool]


@dataclass(frozen=True, slots=True)
class Value:
    """A column of the CSV: a heading with its unit, and a row's number or text, None if unknown."""

    heading: str
    read: Callable[[RowResult], Number | str | None]


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its heading, what it is, the text of a row's cell, and the ``values`` behind it.

    ``group`` is the table it stands in, None for the columns that name a row in all of them. The
    first of ``values`` is what a table is sorted by. ``timed`` cells mean nothing, and are struck
    out, where a row is invalid or below its thresholds. One that ``hides`` is told once above the
    table where all rows agree.
    """

    heading: str
    about: str
    show: Show
    values: tuple[Value, ...]
    group: Group | None = None
    timed: bool = False
    hides: bool = True

    def struck(self, row: RowResult) -> bool:
        """Return whether this row's figure is to be struck out."""
        void = bool(row.below or row.invalid)
        return self.timed and void and self.show(row) not in (NONE, FAILED, UNAVAILABLE)


def joined(values: Iterable[float | None]) -> str:
    """Show some milliseconds, a dash for each that is not there; one dash if none is."""
    told = [NONE if value is None else ms(value) for value in values]
    return " / ".join(told) if set(told) - {NONE} else NONE


def ms(value: float) -> str:
    """Show milliseconds with three significant digits."""
    return f"{value:.{2 if value >= 1 else 3}f}" if value < 10 else f"{value:.1f}"


def is_emulated(report: Report, row: RowResult) -> bool:
    """Return whether ``row`` ran under emulation, where times and memory mean nothing."""
    return report.targets.get(row.target, {}).get("kind") == "emu" or bool(row.instructions)
