"""A report as one HTML file that needs nothing else: no network, and readable without scripts.

Whatever comes from the report is escaped, and a Content-Security-Policy (W3C, CSP Level 3) lets the
browser load nothing and run only the script whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from asterisk.bench.cells import FAILED, NONE, UNAVAILABLE
from asterisk.bench.charts import charts
from asterisk.bench.fields import fields
from asterisk.bench.page_style import SCRIPT, STYLE
from asterisk.bench.results import Report
from asterisk.bench.svg import escape
from asterisk.bench.tables import (
    INTERCHANGE,
    INTERCHANGE_NOTE,
    Cell,
    Table,
    effort,
    interchange,
    not_for_publication,
    problems,
    tables,
)


def html_page(report: Report) -> str:
    """Return the whole page."""
    name = escape(report.checkpoint["name"])
    doubt = not_for_publication(report)
    parts = [
        f'<p class="lead"><strong>{escape(doubt)}</strong></p>' if doubt else "",
        f"<h1>{name}: benchmark</h1>",
        f'<p class="lead">{escape(effort(report))}.</p>',
        _facts(report),
        *(_told(title, lines) for title, lines in problems(report)),
        *(_section(table) for table in tables(report)),
        _interchange(report),
        _charts(report),
        _targets(report),
        _legend(report),
        _settings(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{name}: benchmark</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _policy() -> str:
    return (
        f"default-src 'none'; style-src '{_hash(STYLE)}'; script-src '{_hash(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(report: Report) -> str:
    machine, before, after = report.machine, report.before, report.after
    limit = machine.get("cgroup_limit_bytes")
    git = machine.get("git") or {}
    facts = [
        ("Machine", machine["cpu"]),
        ("Board", _told_only(machine.get("board"))),
        ("Cores", machine["cores"]),
        ("Memory", _gigabytes(machine.get("ram_bytes"))),
        ("Limit of memory", _gigabytes(limit) if limit else None),
        ("System", " ".join(str(machine.get(n) or "") for n in ("system", "kernel", "libc"))),
        ("Distribution", _told_only(machine.get("distribution"))),
        ("Architecture", machine["architecture"]),
        ("Python", machine["python"]),
        ("Instructions", " ".join(machine.get("isa") or ())),
        ("Load", _change(before.get("load"), after.get("load"))),
        ("Governor", before.get("governor")),
        ("Temperature, \u00b0C", _change(before.get("temperature_c"), after.get("temperature_c"))),
        ("Throttled", after.get("throttled")),
        ("Commit", f"{str(git['commit'])[:12]}{' and changes' if git.get('dirty') else ''}"
         if git.get("commit") else None),
        ("Embedding space", str(report.checkpoint.get("fingerprint", ""))[:16]),
    ]  # fmt: skip
    return _list("facts", ((name, str(value)) for name, value in facts if value not in (None, "")))


def _told_only(value: object) -> object:
    return None if value == UNAVAILABLE else value


def _change(before: object, after: object) -> str | None:
    if before is None and after is None:
        return None
    shown = [f"{value:.3g}" if isinstance(value, int | float) else "?" for value in (before, after)]
    return f"{shown[0]} before, {shown[1]} after"


def _gigabytes(value: Any) -> str:
    return f"{value / 1e9:.1f} GB" if value else UNAVAILABLE


def _list(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    told = "\n".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in pairs
    )
    return f'<dl class="{name}">\n{told}\n</dl>'


def _told(title: str, lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    name = "told failed" if title == "Failed" else "told"
    return f'<section class="{name}">\n<h2>{title}</h2>\n<ul>\n{items}\n</ul>\n</section>'


def _section(table: Table) -> str:
    note = table.note
    if table.same:
        told = "; ".join(f"{field.heading} {text}" for field, text in table.same)
        note += f" In every row: {told}."
    head = f'<h2>{escape(table.title)}</h2>\n<p class="note">{escape(note)}</p>'
    if len(table.columns) == table.names:
        return head
    headings = "".join(
        f'<th scope="col"{_left(n, table)} title="{escape(field.about)}">'
        f"{escape(field.heading)}</th>"
        for n, field in enumerate(table.columns)
    )
    lines = []
    for row, cells in zip(table.rows, table.cells, strict=True):
        why = "; ".join([*row.below, *row.invalid])
        lines.append("".join(_cell(n, cell, table, why) for n, cell in enumerate(cells)))
    return head + "\n" + _table(table.title, headings, lines, "sorts")


def _left(column: int, table: Table) -> str:
    return ' class="left"' if column < table.names else ""


def _cell(column: int, cell: Cell, table: Table, why: str) -> str:
    text = escape(cell.text)
    if cell.struck:
        text = f'<s title="{escape(why)}">{text}</s>'
    names = {NONE: "none", UNAVAILABLE: "none", FAILED: "failure"}
    named = column < table.names
    style = "left" if named else names.get(cell.text, "")
    value: object = cell.text if named else cell.value
    attributes = f' class="{style}"' if style else ""
    if value is not None:
        attributes += f' data-value="{escape(str(value))}"'
    if column == 0:
        return f'<th scope="row"{attributes}>{text}</th>'
    return f"<td{attributes}>{text}</td>"


def _table(title: str, headings: str, lines: Sequence[str], style: str) -> str:
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">\n'
        f'<table class="{style}">\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table>\n</div>"
    )


def _plain(title: str, grid: Sequence[Sequence[str]]) -> str:
    headings = "".join(
        f'<th scope="col"{"" if n else " class=" + chr(34) + "left" + chr(34)}>{escape(text)}</th>'
        for n, text in enumerate(grid[0])
    )
    lines = [
        f'<th scope="row" class="left">{escape(first)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in rest)
        for first, *rest in grid[1:]
    ]
    return _table(title, headings, lines, "")


def _interchange(report: Report) -> str:
    grid = interchange(report)
    if not grid:
        return ""
    note = f'<h2>{INTERCHANGE}</h2>\n<p class="note">{INTERCHANGE_NOTE}</p>'
    return f"{note}\n{_plain(INTERCHANGE, grid)}"


def _charts(report: Report) -> str:
    figures = "\n".join(
        f"<figure>\n{drawing.svg(alone=False)}<figcaption>{escape(drawing.note)}</figcaption>\n"
        "</figure>"
        for drawing in charts(report)
    )
    return f'<h2>Pictures</h2>\n<div class="charts">\n{figures}\n</div>' if figures else ""


def _targets(report: Report) -> str:
    """Return the table of machines, where there is more than the one in the heading."""
    if not report.targets.keys() - {"local"}:
        return ""
    grid = [["target", "kind", "machine", "cores", "memory", "temperature, \u00b0C", "throttled"]]
    for name, target in report.targets.items():
        machine, before, after = (target.get(part) or {} for part in ("machine", "before", "after"))
        grid.append(
            [
                name,
                str(target.get("kind", NONE)),
                str(machine.get("cpu", NONE)),
                str(machine.get("cores", NONE)),
                _gigabytes(machine.get("ram_bytes")),
                _change(before.get("temperature_c"), after.get("temperature_c")) or UNAVAILABLE,
                str(after.get("throttled", UNAVAILABLE)),
            ]
        )
    return f"<h2>Targets</h2>\n{_plain('Targets', grid)}"


def _legend(report: Report) -> str:
    """Return what each column is, hidden ones included: they are told above their table."""
    pairs = ((field.heading, field.about) for field in fields(report))
    return f"<h2>The columns</h2>\n{_list('legend', pairs)}"


def _settings(report: Report) -> str:
    settings = report.settings
    command = shlex.join(["asterisk-bench", *map(str, settings.get("argv", ()))])
    versions = report.machine["packages"].items()
    packages = ", ".join(f"{name} {version}" for name, version in versions)
    return (
        f"<footer>\n<p>Command: <code>{escape(command)}</code>. Packages: {escape(packages)}. "
        f"JSON of schema {report.schema}.</p>\n</footer>"
    )
