"""A report as Markdown."""

from __future__ import annotations

from asterisk.bench.fields import MB, fields
from asterisk.bench.results import Report

LEGEND = (
    "Latency is end to end (tokenise, infer, normalise), one text a call on one thread: "
    "p50 / p90 / p95. Struck out: below its recipe's fidelity thresholds. "
    "`x peer` is the peer's p50 over the row's. Start is import, load and first vector. "
    "PSS, private and peak RSS are of a process of its own after 200 calls at 20 tokens, then "
    "after one text of 512. Cosine and overlap are against the row's own FP32. MB is 10^6 bytes."
)


def markdown(report: Report) -> str:
    """Return the table with what is needed to judge it."""
    parts = [_heading(report), table(report), LEGEND]
    for title, lines in (("Warnings", report.warnings), ("Failed", report.failures)):
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines))
    below = [f"{row.title}: {', '.join(row.below)}" for row in report.rows if row.below]
    if below:
        parts.append("Below the thresholds:\n\n" + "\n".join(f"- {line}" for line in below))
    return "\n\n".join(parts) + "\n"


def table(report: Report) -> str:
    """Return the table alone; a column that says nothing in every row is left out."""
    columns = []
    for field in fields(report):
        cells = [field.show(row) for row in report.rows]
        if set(cells) - {"-"}:
            columns.append([field.heading, *cells])
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| "
        + " | ".join(_place(cell, width, index) for index, (cell, width) in enumerate(pairs))
        + " |"
        for pairs in (zip(row, widths, strict=True) for row in zip(*columns, strict=True))
    ]
    rule = [
        ("-" * width if index < 2 else "-" * (width - 1) + ":")
        for index, width in enumerate(widths)
    ]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _place(cell: str, width: int, index: int) -> str:
    return cell.ljust(width) if index < 2 else cell.rjust(width)


def _heading(report: Report) -> str:
    machine, effort = report.machine, report.settings["effort"]
    ram = machine["ram_bytes"]
    where = [
        machine["cpu"],
        f"{machine['cores']} cores",
        *([f"{ram / MB / 1000:.1f} GB"] if ram else []),
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    how = f"{effort['processes']} processes a cell, seed {report.settings['seed']}"
    return f"**{report.checkpoint['name']}** on {', '.join(where)}; {how}."
