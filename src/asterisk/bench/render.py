"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    parts = [f"**{plain(doubt)}**"] if doubt else []
    parts.append(f"**{plain(report.checkpoint['name'])}** on {plain(heading(report))}.")
    for table in tables(report):
        parts.append(f"**{table.title}.** {table.note}{_same(table)}")
        if len(table.columns) > table.names:
            parts.append(_table(table))
    if lines := interchange(report):
        parts += [f"**{INTERCHANGE}.** {INTERCHANGE_NOTE}", grid(lines, {0})]
    for title, why in problems(report):
        parts.append(f"{title}:\n\n" + "\n".join(f"- {plain(line)}" for line in why))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    headings = [field.heading for field in table.columns]
    lines = [headings, *([_text(cell) for cell in row] for row in table.cells)]
    return grid(lines, range(table.names))


def _same(table: Table) -> str:
    if not table.same:
        return ""
    told = "; ".join(f"{field.heading} {text}" for field, text in table.same)
    return f" In every row: {plain(told)}."


def grid(lines: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Return headings and rows as a table; the columns in ``left`` are set left, others right."""
    lines = [[plain(text).replace("|", r"\|") for text in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]  # a rule is ---
    rule = [
        "-" * width if place in left else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    padded = (
        [
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (lines[0], rule, *lines[1:])
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def _text(cell: Cell) -> str:
    return f"~~{cell.text}~~" if cell.struck else cell.text


def plain(text: str) -> str:
    """Return ``text`` on one line, without tags and without what moves a terminal's cursor."""
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return shown.replace("<", "&lt;")
