"""Whether a report that was read has all that is shown of the parts that are declared as Any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asterisk.bench.reading import check
from asterisk.bench.results import Report
from asterisk.common.errors import InputError, one_line

MOST_ROWS = 1_000
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "checkpoint": {"name": str},
    "settings": {
        "buckets": list[int],
        "threads": list[int],
        "peers": list[str],
        "effort": dict[str, Any],
        "seed": int,
    },
    "machine": {
        "cpu": str,
        "cores": int | None,
        "system": str,
        "architecture": str,
        "python": str,
        "packages": dict[str, str],
    },
}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "settings": {"argv": list[str], "max_memory": int | None},
    "machine": {
        "ram_bytes": int | None,
        "cgroup_limit_bytes": int | None,
        "isa": list[str],
        "git": dict[str, Any],
    },
}
TARGET: Mapping[str, Any] = {
    "kind": str,
    "machine": dict[str, Any] | None,
    "before": dict[str, Any] | None,
    "after": dict[str, Any] | None,
    "warnings": list[str] | None,
}
# Figures by tokens or threads, which are shown in the order of these numbers.
COUNTED = ("latency", "samples_ns", "throughput", "parts_ms", "instructions")


def check_renderable(report: Report) -> None:
    """Raise InputError, in one line, for a report that cannot be rendered."""
    try:
        _check(report)
    except ValueError as failure:
        raise InputError(f"this report cannot be rendered: {one_line(failure)[:200]}") from None


def _check(report: Report) -> None:
    if len(report.rows) > MOST_ROWS:
        raise ValueError(f"it has more than {MOST_ROWS} rows")
    for part, kinds in NEEDED.items():
        values = getattr(report, part)
        for name, kind in kinds.items():
            if name not in values:
                raise ValueError(f"{part} has no {name}")
            check(values[name], kind, f"{part}.{name}")
    for part, kinds in KNOWN.items():
        _check_known(getattr(report, part), kinds, part)
    check(report.settings["effort"].get("processes"), int, "settings.effort.processes")
    for name, target in report.targets.items():
        where = f"targets[{name!r:.40}]"
        _check_known(target, TARGET, where)
        _check_known(target.get("machine") or {}, {"ram_bytes": int | None}, where)
    for row in report.rows:
        figures = [
            *(getattr(row, name) for name in COUNTED),
            *row.faster.values(),
            *row.faster_engine.values(),
        ]
        for key in (key for some in figures for key in some):
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise ValueError(f"{key!r:.40} is no number of tokens or threads")
        if row.installed is not None and "bytes" not in row.installed:
            raise ValueError("installed has no bytes")


def _check_known(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    for name, kind in kinds.items():
        if name in values:
            check(values[name], kind, f"{where}.{name}")
