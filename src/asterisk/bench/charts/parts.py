"""What several charts draw alike: axes, names of rows, legends, labels that keep apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asterisk.bench.cells import is_emulated
from asterisk.bench.charts.scale import Scale, compact
from asterisk.bench.plan import STEADY
from asterisk.bench.results import Report, RowResult
from asterisk.bench.svg import Drawing, width_of
from asterisk.bench.tables import LOCAL


def real(report: Report) -> list[RowResult]:
    """Return the rows that have times: those of machines that are not emulated."""
    return [row for row in report.rows if not is_emulated(report, row)]


def name(report: Report, row: RowResult) -> str:
    """Return what tells ``row`` from the others."""
    several = len({row.target for row in report.rows}) > 1 and row.target != LOCAL
    return f"{row.title} {row.recipe}" + (f" @ {_host(row.target)}" if several else "")


def _host(target: str) -> str:
    """Return the part of a target's name that tells it from others at a glance."""
    return re.sub(r"^ssh://(?:[^@/]*@)?([^:/.]+).*$", r"\1", target, flags=re.DOTALL)


def struck(row: RowResult) -> str:
    """Return the classes of a name whose figures mean nothing."""
    return "struck" if row.below or row.invalid else ""


def steady(report: Report) -> str:
    """Return the bucket, by tokens, that stands for all where there is room for one only."""
    buckets = report.settings["buckets"]
    return str(STEADY if STEADY in buckets or not buckets else buckets[len(buckets) // 2])


def x_axis(drawing: Drawing, scale: Scale, top: float, bottom: float, title: str) -> None:
    """Draw vertical grid lines, their figures and what they are of."""
    last = -1e9
    for tick in scale.ticks():
        x, words = scale(tick), compact(tick)
        drawing.line(x, top, x, bottom, "grid")
        if x - last > width_of(words) + 6:
            drawing.text(x, bottom + 15, words, "middle mute")
            last = x
    drawing.line(scale.start, bottom, scale.end, bottom, "axis")
    drawing.text((scale.start + scale.end) / 2, bottom + 32, _scaled(title, scale), "middle mute")


def y_axis(drawing: Drawing, scale: Scale, left: float, right: float, title: str) -> None:
    """Draw horizontal grid lines, their figures and what they are of."""
    for tick in scale.ticks():
        y = scale(tick)
        drawing.line(left, y, right, y, "grid")
        drawing.text(left - 6, y + 4, compact(tick), "end mute")
    drawing.line(left, scale.start, left, scale.end, "axis")
    drawing.text(12, min(scale.start, scale.end) - 10, _scaled(title, scale), "mute")


def _scaled(title: str, scale: Scale) -> str:
    return f"{title} (log scale)" if scale.log else title


def spread(places: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Return ``places`` moved as little as needed to stand ``gap`` apart, in the same order.

    Where they do not all fit between ``top`` and ``bottom``, they stand closer.
    """
    if not places:
        return []
    gap = min(gap, (bottom - top) / max(1, len(places) - 1))
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    low = top
    for index in order:
        moved[index] = low = max(moved[index], low)
        low += gap
    high = bottom
    for index in reversed(order):
        moved[index] = high = min(moved[index], high)
        high -= gap
    return moved
