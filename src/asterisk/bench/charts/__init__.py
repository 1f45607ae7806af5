"""The pictures of a report, as SVG. Standard library only: the parent of a run maps no numpy."""

from __future__ import annotations

from asterisk.bench.charts import distributions, jitter, lanes, phases, tradeoff
from asterisk.bench.results import Report
from asterisk.bench.svg import Drawing

CHARTS = (
    tradeoff.draw,
    distributions.draw,
    jitter.draw,
    phases.draw,
    lanes.throughput,
    lanes.instructions,
)
NAMES = ("latency-memory", "latency", "jitter", "memory", "throughput", "instructions")


def charts(report: Report) -> list[Drawing]:
    """Return every picture for which ``report`` has figures."""
    return [drawing for draw in CHARTS if (drawing := draw(report))]
