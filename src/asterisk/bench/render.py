"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from asterisk.bench.results import Report
from asterisk.bench.tables import (
    INTERCHANGE,
    INTERCHANGE_NOTE,
    Cell,
    Table,
    heading,
    interchange,
    not_for_publication,
    problems,
    tables,
)


def markdown(report: Report) -> str:
    """Return the tables with what is needed to judge them."""
    doubt = not_for_publication(report)
    parts = [f"**{_plain(doubt)}**"] if doubt else []
    parts.append(f"**{_plain(report.checkpoint['name'])}** on {_plain(heading(report))}.")
    for table in tables(report):
        parts.append(f"**{table.title}.** {table.note}{_same(table)}")
        if len(table.columns) > table.names:
            parts.append(_table(table))
    grid = interchange(report)
    if grid:
        parts += [f"**{INTERCHANGE}.** {INTERCHANGE_NOTE}", _grid(grid, 1)]
    for title, lines in problems(report):
        parts.append(f"{title}:\n\n" + "\n".join(f"- {_plain(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    headings = [field.heading for field in table.columns]
    return _grid([headings, *([_text(cell) for cell in row] for row in table.cells)], table.names)


def _same(table: Table) -> str:
    if not table.same:
        return ""
    told = "; ".join(f"{field.heading} {text}" for field, text in table.same)
    return f" In every row: {_plain(told)}."


def _grid(lines: Sequence[Sequence[str]], names: int) -> str:
    """Return a table whose first ``names`` columns are set left, the others right."""
    lines = [[_plain(text).replace("|", r"\|") for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * width if index < names else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    padded = [
        [
            text.ljust(width) if index < names else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))


def _text(cell: Cell) -> str:
    return f"~~{cell.text}~~" if cell.struck else cell.text


def _plain(text: str) -> str:
    """Return ``text`` on one line, without tags and without what moves a terminal's cursor."""
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return shown.replace("<", "&lt;")
