"""What people read of a run: the tables, and the files that are rendered from its JSON.

The CSV (RFC 4180) has every figure as the JSON has it. On the page a Content-Security-Policy (W3C,
CSP Level 3) allows only the style and the script whose hashes it names.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from asterisk.bench.charts import NAMES, STYLE, Picture, charts
from asterisk.bench.columns import FAILED, NONE, UNAVAILABLE, Field, Group, Number, fields
from asterisk.bench.machine import BUSY
from asterisk.bench.results import Report, RowResult
from asterisk.common.errors import OutputError
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require

LOCAL = "local"
STEM = "latest"
INTERCHANGE = "Interchange"
INTERCHANGE_NOTE = (
    "Queries embedded by one row, searched in an index embedded by another: "
    "mean cosine / overlap@10."
)
_FORMULAS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class Table(NamedTuple):
    """Some columns of some rows."""

    title: str
    note: str
    columns: list[Field]
    names: int  # so many of the first columns say which row it is
    rows: list[RowResult]
    same: list[tuple[Field, str]]  # columns that say one thing in every row, and what


def tables(report: Report) -> list[Table]:
    """Return a table for each group of columns that says anything."""
    every = fields(report)
    groups = dict.fromkeys(field.group for field in every if field.group)
    return [table for group in groups if (table := _table(report, every, group))]


def _table(report: Report, every: Sequence[Field], group: Group) -> Table | None:
    rows = [row for row in report.rows if group.holds(row)]
    own = [
        field
        for field in every
        if field.group is group and any(field.show(row) != NONE for row in rows)
    ]
    if not own:
        return None
    shown = [field for field in every if field.group is None] + own
    same = [field for field in shown if _is_same(field, rows)]
    shown = [field for field in shown if field not in same]
    return Table(
        group.title,
        group.note,
        shown,
        sum(field.group is None for field in shown),
        rows,
        # That everything ran on this machine is not worth a word.
        [(it, it.show(rows[0])) for it in same if it.group or it.show(rows[0]) != LOCAL],
    )


def _is_same(field: Field, rows: Sequence[RowResult]) -> bool:
    """Return whether ``field`` is stated only once; a name always where it is the only one."""
    texts = {(field.show(row), field.struck(row)) for row in rows}
    if len(texts) > 1 or not field.hides or any(struck for _, struck in texts):
        return False
    return len(rows) > 1 or field.group is None


def interchange(report: Report) -> list[list[str]]:
    """Return the table of queries by one row over an index by another; empty without one."""
    found = report.interchange
    names = list(dict.fromkeys([*found, *(name for row in found.values() for name in row)]))
    if not names:
        return []

    def text(figures: dict[str, float]) -> str:
        forms = (("cosine_mean", "{:.4f}"), ("overlap_at_10", "{:.3f}"))
        shown = [form.format(figures[name]) for name, form in forms if name in figures]
        return " / ".join(shown) or NONE

    lines = [[query, *(text(found[query].get(name, {})) for name in names)] for query in found]
    return [["query by", *(f"index by {name}" for name in names)], *lines]


def not_for_publication(report: Report) -> str:
    """Return in one line why the times should not be published; empty if they may be."""
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

    def line(row: RowResult, reasons: list[str]) -> str:
        where = "" if row.target == LOCAL else f" on {row.target}"
        return f"{row.title} {row.recipe}{where}: {', '.join(reasons)}"

    warnings = list(report.warnings)
    for name, target in report.targets.items():
        lines = target.get("warnings") or []
        where = f"{name}: " if len(report.targets) > 1 else ""
        warnings += [f"{where}{text}" for text in lines if text not in warnings]
    found = (
        ("Failed", report.failures),
        ("Void times", [line(row, row.invalid) for row in report.rows if row.invalid]),
        ("Below the thresholds", [line(row, row.below) for row in report.rows if row.below]),
        ("Warnings", warnings),
    )
    return [(title, lines) for title, lines in found if lines]


def effort(report: Report) -> str:
    """Say how long and in which order it was measured."""
    settings = report.settings
    return f"{settings['effort']['processes']} processes a cell, seed {settings['seed']}"


def markdown(report: Report) -> str:
    """Return the tables with what is needed to judge them."""
    doubt, machine = not_for_publication(report), report.machine
    ram = machine.get("ram_bytes")
    where = [
        machine["cpu"],
        f"{machine['cores']} cores",
        *([_gigabytes(ram)] if ram else []),
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    heading = f"{', '.join(map(str, where))}; {effort(report)}"
    parts = [f"**{plain(doubt)}**"] if doubt else []
    parts.append(f"**{plain(report.checkpoint['name'])}** on {plain(heading)}.")
    for table in tables(report):
        same = "; ".join(f"{field.heading} {text}" for field, text in table.same)
        same = f" In every row: {plain(same)}." if same else ""
        parts.append(f"**{table.title}.** {table.note}{same}")
        if len(table.columns) > table.names:
            headings = [field.heading for field in table.columns]
            lines = [[field.marked(row) for field in table.columns] for row in table.rows]
            parts.append(grid([headings, *lines], range(table.names)))
    if lines := interchange(report):
        parts += [f"**{INTERCHANGE}.** {INTERCHANGE_NOTE}", grid(lines, {0})]
    for title, why in problems(report):
        parts.append(f"{title}:\n\n" + "\n".join(f"- {plain(line)}" for line in why))
    return "\n\n".join(parts) + "\n"


def grid(lines: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Return headings and rows as a table; the columns in ``left`` are set left, others right."""
    lines = [[plain(text).replace("|", r"\|") for text in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]  # a rule is ---
    aligned = [str.ljust if number in left else str.rjust for number in range(len(widths))]
    rules = [
        "-" * width if set_ is str.ljust else "-" * (width - 1) + ":"
        for set_, width in zip(aligned, widths, strict=True)
    ]
    padded = (
        [set_(text, width) for set_, text, width in zip(aligned, line, widths, strict=True)]
        for line in (lines[0], rules, *lines[1:])
    )
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def plain(text: str) -> str:
    """Return ``text`` on one line, without tags and without what moves a terminal's cursor."""
    shown = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return shown.replace("<", "&lt;")


def csv_text(report: Report) -> str:
    """Return the CSV of ``report``; an empty cell is a missing figure."""
    columns = [
        (field.group, *column) for field in fields(report) for column in field.values.items()
    ]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_escaped(heading) for _, heading, _ in columns])
    for row in report.rows:
        found = (read(row) if not group or group.holds(row) else None for group, _, read in columns)
        writer.writerow(map(_escaped, found))
    return text.getvalue()


def _escaped(value: Number | str | None) -> Number | str | None:
    """Put a quote before what a spreadsheet would carry out as a formula."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULAS):
        return "'" + value
    return value


def html_page(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """Return the whole page, with ``pictures`` in it; MissingExtra without jinja2."""
    jinja = require("jinja2", "bench")
    files = jinja.PackageLoader("asterisk.bench")
    spaces = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    page = jinja.Environment(
        loader=files, autoescape=True, undefined=jinja.StrictUndefined, **spaces
    )
    style, script = (files.get_source(page, f"report.{kind}")[0] for kind in ("css", "js"))
    style += STYLE + "\n"
    hashes = (
        "sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (style, script)
    )
    versions = report.machine["packages"].items()
    text: str = page.get_template("report.html").render(
        name=report.checkpoint["name"],
        policy="default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; "
        "form-action 'none'".format(*hashes),
        style=style,
        script=script,
        doubt=not_for_publication(report),
        effort=effort(report),
        report=report,
        machine=report.machine,
        git=report.machine.get("git") or {},
        problems=problems(report),
        tables=tables(report),
        classes={NONE: "none", UNAVAILABLE: "none", FAILED: "failure"},
        interchange=interchange(report),
        interchange_title=INTERCHANGE,
        interchange_note=INTERCHANGE_NOTE,
        pictures=pictures,
        change=_change,
        gigabytes=_gigabytes,
        legend=[(field.heading, field.about) for field in fields(report)],
        command=shlex.join(["asterisk-bench", *map(str, report.settings.get("argv", ()))]),
        packages=", ".join(f"{name} {version}" for name, version in versions),
    )
    return text


def _change(before: object, after: object) -> str | None:
    if before is None and after is None:
        return None
    shown = [f"{value:.3g}" if isinstance(value, int | float) else "?" for value in (before, after)]
    return f"{shown[0]} before, {shown[1]} after"


def _gigabytes(value: Any) -> str:
    return f"{value / 1e9:.1f} GB" if value else UNAVAILABLE


def renderings(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that is made from ``report``, the JSON first.

    MissingExtra at the page, once all text is out, without jinja2 or matplotlib.
    """
    yield f"{STEM}.json", report.to_json()
    yield f"{STEM}.md", markdown(report)
    yield f"{STEM}.csv", csv_text(report)
    pictures = charts(report)
    yield f"{STEM}.html", html_page(report, pictures)
    for picture in pictures:
        yield f"{picture.name}.svg", picture.file()


def write(report: Report, out: Path) -> None:
    """Write all of them into ``out``, each whole or not at all; OutputError if one cannot be.

    A page or picture of an earlier run is removed: it would be taken for this one's.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {out}: {failure.strerror or failure}") from failure
    stale = {f"{STEM}.html", *(f"{name}.svg" for name in (*NAMES, "jitter"))}
    try:
        for name, text in renderings(report):
            with replacing_file(out / name) as staging:
                # A name may hold half of a surrogate pair, which no file can.
                staging.write_bytes(text.encode("utf-8", "replace"))
            stale.discard(name)
    finally:
        for name in stale:
            (out / name).unlink(missing_ok=True)
