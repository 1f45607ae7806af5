"""What deduplication has to reach, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.search.report import MB, Bar

ROWS = 100_000  # texts that the bars speak of; fewer say nothing
SECONDS = 120
PEAK = 400  # MB


def bars(report: Mapping[str, Any]) -> list[Bar]:
    """Return the bars with what this package needed, none for a run of fewer texts."""
    if report["rows"] < ROWS:
        return []
    rows = [row for row in report["methods"] if row["method"] == "asterisk"]
    seconds = rows[0]["seconds"] if rows else None
    peak = rows[0]["peak"] / MB if rows else None
    return [
        Bar(f"{ROWS:,} texts, wall time", SECONDS, "s", seconds),
        Bar(f"{ROWS:,} texts, peak memory", PEAK, "MB", peak),
    ]


def verdicts(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the bars as a Markdown table, after an empty line."""
    found = bars(report)
    if found:
        yield from ("", "| what | bar | found | |", "|---|--:|--:|---|")
    for bar in found:
        shown = "–" if bar.found is None else f"{bar.found:,.1f} {bar.unit}"
        yield f"| {bar.what} | ≤ {bar.bound:,.0f} {bar.unit} | {shown} | {bar.verdict} |"
