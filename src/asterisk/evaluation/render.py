"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asterisk.evaluation.report import Cell, Difference, Report, RowOf

NONE = "-"


def markdown(report: Report) -> str:
    """Return the tables with what is needed to judge them."""
    settings = report.settings
    rows = [*report.rows, *report.averages]
    parts = [_heading(report), _table(report, rows, _score)]
    if settings["teacher"]:
        parts += [
            f"Retention, per cent of {settings['teacher']}:",
            _table(report, rows, _retention),
        ]
    if any(cell.asymmetric for row in rows for cell in row.cells.values()):
        parts += [
            "Asymmetric (the teacher's documents) minus symmetric retrieval:",
            _table(report, rows, _asymmetric),
        ]
    parts.append(
        "Scores are times 100. After a score: its difference to the baseline's and the 95 % "
        f"interval of that over {settings['resamples']:,} paired resamples (seed "
        f"{settings['seed']}); * where it excludes 0."
    )
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _heading(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return (
        f"**{report.settings['split']} split**, baseline {report.settings['baseline']}; {versions}."
    )


def _table(report: Report, rows: Sequence[RowOf], show: Callable[[Cell], str]) -> str:
    labels = [column.label for column in report.columns]
    lines = [["task", "metric", "n", *labels]]
    for row in rows:
        told = [show(row.cells[label]) if label in row.cells else NONE for label in labels]
        if set(told) != {NONE}:
            is_average = row in report.averages
            name = f"**{row.group}, {row.task}**" if is_average else row.task
            lines.append([name, row.metric, f"{row.items:,}", *told])
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


def _score(cell: Cell) -> str:
    told = f"{cell.score:.2f}"
    return told if cell.difference is None else f"{told} {_difference(cell.difference)}"


def _retention(cell: Cell) -> str:
    return NONE if cell.retention is None else f"{cell.retention:.1f}"


def _asymmetric(cell: Cell) -> str:
    return NONE if cell.asymmetric is None else _difference(cell.asymmetric)


def _difference(it: Difference) -> str:
    star = "*" if it.significant else " "
    return f"{it.value:+.2f} [{it.low:+.2f}, {it.high:+.2f}]{star}"
