"""What the tables of a report say, before anyone decides how they look.

Markdown and HTML are both made from this: which columns stand where, which say the same in every
row and are told once, which cells are struck out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asterisk.bench.cells import NONE, Field, Group, Number
from asterisk.bench.fields import fields
from asterisk.bench.machine import BUSY
from asterisk.bench.results import Report, RowResult

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's text, the value it sorts by, and whether it is struck out."""

    text: str
    value: Number | str | None
    struck: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Some columns of some rows; the first ``names`` columns say which row it is.

    ``same`` are the headings and texts of columns that say one thing in every row.
    """

    title: str
    note: str
    columns: tuple[Field, ...]
    names: int
    rows: tuple[RowResult, ...]
    cells: tuple[tuple[Cell, ...], ...]
    same: tuple[tuple[Field, str], ...]


def tables(report: Report) -> list[Table]:
    """Return a table for each group of columns that says anything."""
    every = fields(report)
    groups = list(dict.fromkeys(field.group for field in every if field.group))
    made = (_table(report, every, group) for group in groups)
    return [table for table in made if table]


def _table(report: Report, every: Sequence[Field], group: Group) -> Table | None:
    rows = [row for row in report.rows if group.holds(row)]
    names = [field for field in every if field.group is None]
    own = [field for field in every if field.group is group]
    own = [field for field in own if any(field.show(row) != NONE for row in rows)]
    if not own:
        return None
    same = [field for field in (*names, *own) if _is_same(field, rows)]
    names = [field for field in names if field not in same]
    shown = [*names, *(field for field in own if field not in same)]
    return Table(
        group.title,
        group.note,
        tuple(shown),
        len(names),
        tuple(rows),
        tuple(tuple(cell(field, row) for field in shown) for row in rows),
        tuple((field, field.show(rows[0])) for field in same if _is_news(field, rows[0])),
    )


def _is_same(field: Field, rows: Sequence[RowResult]) -> bool:
    """Return whether ``field`` need be told only once; a name always where it is the only one."""
    told = {(field.show(row), field.struck(row)) for row in rows}
    if len(told) > 1 or not field.hides or any(struck for _, struck in told):
        return False
    return len(rows) > 1 or field.group is None


def _is_news(field: Field, row: RowResult) -> bool:
    """Return whether it is worth a word; that everything ran on this machine is not."""
    return field.group is not None or field.show(row) != LOCAL


def cell(field: Field, row: RowResult) -> Cell:
    """Return what ``field`` says of ``row``."""
    value = field.values[0].read(row) if field.values else None
    return Cell(field.show(row), value, field.struck(row))


def interchange(report: Report) -> list[list[str]]:
    """Return the table of queries by one row over an index by another; empty if none was made."""
    found = report.interchange
    names = list(dict.fromkeys([*found, *(name for row in found.values() for name in row)]))
    if not names:
        return []

    def text(figures: dict[str, float]) -> str:
        told = (("cosine_mean", "{:.4f}"), ("overlap_at_10", "{:.3f}"))
        shown = [form.format(figures[name]) for name, form in told if name in figures]
        return " / ".join(shown) or NONE

    lines = [[query, *(text(found[query].get(name, {})) for name in names)] for query in found]
    return [["query by", *(f"index by {name}" for name in names)], *lines]


INTERCHANGE = "Interchange"
INTERCHANGE_NOTE = (
    "Queries embedded by one row, searched in an index embedded by another: "
    "mean cosine / overlap@10."
)


def not_for_publication(report: Report) -> str:
    """Return in one line why the times should not be published; empty if nothing is known."""
    states = {LOCAL: report.before} | {
        name: target.get("before") or {}
        for name, target in report.targets.items()
        if target.get("kind") == "ssh"
    }
    reasons = [
        f"{'the machine' if name == LOCAL else name} was busy before the run (load {load:.1f})"
        for name, state in states.items()
        if isinstance(load := state.get("load"), int | float) and load > BUSY
    ]
    if any(row.invalid for row in report.rows):
        reasons.append("some times are void")
    return f"Not for publication: {'; '.join(reasons)}." if reasons else ""


def problems(report: Report) -> list[tuple[str, list[str]]]:
    """Return what speaks against the figures, by title, in the order of weight."""

    def told(row: RowResult, reasons: list[str]) -> str:
        where = "" if row.target == LOCAL else f" on {row.target}"
        return f"{row.title} {row.recipe}{where}: {', '.join(reasons)}"

    warnings = list(report.warnings)
    for name, target in report.targets.items():
        lines = target.get("warnings") or []
        where = f"{name}: " if len(report.targets) > 1 else ""
        warnings += [f"{where}{line}" for line in lines if line not in warnings]
    found = (
        ("Failed", report.failures),
        ("Void times", [told(row, row.invalid) for row in report.rows if row.invalid]),
        ("Below the thresholds", [told(row, row.below) for row in report.rows if row.below]),
        ("Warnings", warnings),
    )
    return [(title, lines) for title, lines in found if lines]


def effort(report: Report) -> str:
    """Say how long and in which order it was measured."""
    settings = report.settings
    return f"{settings['effort']['processes']} processes a cell, seed {settings['seed']}"


def heading(report: Report) -> str:
    """Say in one line on what machine and how it was measured."""
    machine = report.machine
    ram = machine.get("ram_bytes")
    where = [
        machine["cpu"],
        f"{machine['cores']} cores",
        *([f"{ram / 1e9:.1f} GB"] if ram else []),
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    return f"{', '.join(map(str, where))}; {effort(report)}"
