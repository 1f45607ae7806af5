"""A report as one HTML file that needs nothing else: no network, and readable without scripts.

jinja2 escapes whatever comes from the report, and a Content-Security-Policy (W3C, CSP Level 3) lets
the browser load nothing and run only the style and the script whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from typing import Any

from asterisk.bench.cells import FAILED, NONE, UNAVAILABLE
from asterisk.bench.charts import STYLE, Picture
from asterisk.bench.fields import fields
from asterisk.bench.results import Report
from asterisk.bench.tables import (
    INTERCHANGE,
    INTERCHANGE_NOTE,
    effort,
    interchange,
    not_for_publication,
    problems,
    tables,
)
from asterisk.common.plugins import require


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
        facts=_facts(report),
        problems=problems(report),
        tables=tables(report),
        classes={NONE: "none", UNAVAILABLE: "none", FAILED: "failure"},
        interchange=interchange(report),
        interchange_title=INTERCHANGE,
        interchange_note=INTERCHANGE_NOTE,
        pictures=pictures,
        targets=_targets(report),
        legend=[(field.heading, field.about) for field in fields(report)],
        command=shlex.join(["asterisk-bench", *map(str, report.settings.get("argv", ()))]),
        packages=", ".join(f"{name} {version}" for name, version in versions),
        schema=report.schema,
    )
    return text


def _facts(report: Report) -> list[tuple[str, Any]]:
    machine, before, after = report.machine, report.before, report.after
    git = machine.get("git") or {}
    facts = [
        ("Machine", machine["cpu"]),
        ("Board", machine.get("board")),
        ("Cores", machine["cores"]),
        ("Memory", _gigabytes(machine.get("ram_bytes"))),
        ("Limit of memory", _gigabytes(machine.get("cgroup_limit_bytes"))),
        ("System", " ".join(str(machine.get(n) or "") for n in ("system", "kernel", "libc"))),
        ("Distribution", machine.get("distribution")),
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
    return [fact for fact in facts if fact[1] not in (None, "", UNAVAILABLE)]


def _change(before: object, after: object) -> str | None:
    if before is None and after is None:
        return None
    shown = [f"{value:.3g}" if isinstance(value, int | float) else "?" for value in (before, after)]
    return f"{shown[0]} before, {shown[1]} after"


def _gigabytes(value: Any) -> str:
    return f"{value / 1e9:.1f} GB" if value else UNAVAILABLE


def _targets(report: Report) -> list[list[str]]:
    """Return the table of machines, where there is more than the one in the heading."""
    if not report.targets.keys() - {"local"}:
        return []
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
    return grid
