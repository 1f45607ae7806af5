"""How the times of single calls are spread, by row and length of the text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from asterisk.bench.cells import ms
from asterisk.bench.charts.parts import name, real, struck, x_axis
from asterisk.bench.charts.scale import Scale, fit, usable
from asterisk.bench.results import Report, RowResult
from asterisk.bench.summary import NS_PER_MS, quantile
from asterisk.bench.svg import SERIES, WIDTH, Drawing

LEFT, RIGHT, TOP = 52.0, WIDTH - 60, 62.0
LANE, HEAD, GAP = 20.0, 18.0, 8.0
EDGE = 0.005  # share of the samples at either end that do not stretch the axis
STEP = 2.0  # pixels a bin
BLUR = (0.06, 0.24, 0.4, 0.24, 0.06)
HALF = LANE / 2 - 1


def draw(report: Report) -> Drawing | None:
    """Draw a shape as thick as calls are frequent, and the median, for each row and length."""
    rows = [row for row in real(report) if any(usable(f.p50) for f in row.latency.values())]
    if not rows:
        return None
    buckets = [str(tokens) for tokens in report.settings["buckets"]]
    lanes = [[tokens for tokens in buckets if tokens in row.latency] for row in rows]
    scale = fit(_range(rows), LEFT, RIGHT)
    tall = sum(HEAD + LANE * len(lane) + GAP for lane in lanes)
    drawing = Drawing(
        "latency",
        "Latency of single calls",
        "As thick as calls are frequent, without the fastest and slowest 0.5 %; the line is the "
        "median, "
        "also at the right in ms; the bar below it, where there is one, its 95 % interval.",
        TOP + tall + 44,
    )
    x_axis(drawing, scale, TOP - 8, TOP + tall, "ms a call")
    drawing.text(LEFT - 8, TOP - 16, "tokens", "end mute small")
    drawing.text(RIGHT + 8, TOP - 16, "p50, ms", "mute small")
    y = TOP
    for row, lane in zip(rows, lanes, strict=True):
        drawing.text(12, y + 12, name(report, row), f"name halo {struck(row)}", WIDTH - 24)
        y += HEAD
        for tokens in lane:
            _lane(drawing, scale, y + LANE / 2, row, tokens)
            y += LANE
        y += GAP
    return drawing


def _range(rows: Sequence[RowResult]) -> list[float]:
    found: list[float] = []
    for row in rows:
        for tokens, figures in row.latency.items():
            every = _samples(row, tokens)
            found += (
                [quantile(every, EDGE), quantile(every, 1 - EDGE)]
                if every
                else [figures.p50, figures.p95]
            )
    return found


def _samples(row: RowResult, tokens: str) -> list[float]:
    every = chain.from_iterable(row.samples_ns.get(tokens, ()))
    return sorted(ns / NS_PER_MS for ns in every if usable(ns / NS_PER_MS))


def _lane(drawing: Drawing, scale: Scale, y: float, row: RowResult, tokens: str) -> None:
    figures = row.latency[tokens]
    colour = list(row.latency).index(tokens) % SERIES
    void = " void" if struck(row) else ""
    tip = (
        f"{tokens} tokens: p50 {ms(figures.p50)}, p90 {ms(figures.p90)}, "
        f"p95 {ms(figures.p95)} ms; {figures.samples} samples"
    )
    drawing.text(LEFT - 8, y + 4, tokens, "end mute")
    every = _samples(row, tokens)
    if len(every) > 1:
        drawing.add("path", f"f{colour} area{void}", tip, d=_violin(scale, every, y))
    elif usable(figures.p50) and usable(figures.p95):
        left, right = scale(figures.p50), scale(figures.p95)
        drawing.add("rect", f"f{colour} area{void}", tip, x=left, y=y - 4,
                    width=max(right - left, 1), height=8)  # fmt: skip
    if not usable(figures.p50):
        return
    x = scale(figures.p50)
    drawing.line(x, y - HALF, x, y + HALF, f"l{colour} line")
    if usable(figures.low) and usable(figures.high) and figures.high > figures.low:
        drawing.line(scale(figures.low), y + HALF, scale(figures.high), y + HALF, f"l{colour} line")
    drawing.text(RIGHT + 8, y + 4, ms(figures.p50), struck(row))


def _violin(scale: Scale, every: Sequence[float], y: float) -> str:
    """Return the outline of a smoothed histogram over the pixels of the axis."""
    count = math.ceil((scale.end - scale.start) / STEP) + 1
    bins = [0.0] * count
    low, high = quantile(every, EDGE), quantile(every, 1 - EDGE)
    for value in every:
        if low <= value <= high:
            bins[int((scale(value) - scale.start) / STEP)] += 1
    reach = len(BLUR) // 2
    smooth = [
        sum(
            weight * bins[n + shift - reach]
            for shift, weight in enumerate(BLUR)
            if 0 <= n + shift - reach < count
        )
        for n in range(count)
    ]
    top = max(smooth) or 1.0
    inside = [n for n, value in enumerate(smooth) if value > 0]
    first, last = (inside[0], inside[-1]) if inside else (0, 0)
    # At least a hair's breadth, so that a lone slow call is still seen.
    thick = [max(0.6, HALF * smooth[n] / top) for n in range(first, last + 1)]
    xs = [scale.start + STEP * (n + 0.5) for n in range(first, last + 1)]
    upper = [f"{x:.1f},{y - t:.1f}" for x, t in zip(xs, thick, strict=True)]
    lower = [f"{x:.1f},{y + t:.1f}" for x, t in zip(xs, thick, strict=True)]
    return "M" + " L".join([*upper, *reversed(lower)]) + "Z"
