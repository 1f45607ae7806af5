"""Whether times change during the run: samples in the order they were taken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from asterisk.bench.charts.parts import name, real, steady, struck
from asterisk.bench.charts.scale import Scale, compact, usable
from asterisk.bench.results import Report, RowResult
from asterisk.bench.summary import NS_PER_MS
from asterisk.bench.svg import WIDTH, Drawing

LEFT, RIGHT, TOP = 46.0, WIDTH - 70, 62.0
HEAD, PANEL, GAP = 18.0, 46.0, 10.0
MOST = 8.0  # times the median; what lies above is told as a figure
STEP = 2.0  # pixels that share a column
BETWEEN = 5.0  # pixels from one process to the next


def draw(report: Report) -> Drawing | None:
    """Draw range and median of neighbouring samples over the row's p50, by process."""
    tokens = steady(report)
    shown = [(row, ratios) for row in real(report) if (ratios := _ratios(row, tokens))]
    if not shown:
        return None
    worst = max(max(map(max, ratios)) for _, ratios in shown)
    best = min(min(map(min, ratios)) for _, ratios in shown)
    low, high = max(min(best, 0.8), 0.25), min(max(worst, 2.0), MOST)
    tall = len(shown) * (HEAD + PANEL + GAP)
    drawing = Drawing(
        "jitter",
        f"Jitter over time, {tokens} tokens",
        "Samples in the order they were taken, process after process, as times the row's median: "
        "the range of neighbours and their own median. The slowest call is told at the right; "
        f"above {MOST:g} times the picture is cut.",
        TOP + tall + 22,
    )
    drawing.text(12, TOP - 16, "times the median (log scale)", "mute")
    drawing.text(RIGHT + 8, TOP - 16, "slowest", "mute small")
    y = TOP
    for row, ratios in shown:
        drawing.text(12, y + 11, name(report, row), f"name {struck(row)}".strip(), WIDTH - 24)
        scale = Scale(low, high, y + HEAD + PANEL, y + HEAD, log=True)
        _panel(drawing, scale, ratios, " void" if struck(row) else "")
        slowest = max(map(max, ratios))
        drawing.text(RIGHT + 8, y + HEAD + 12, f"{compact(slowest)} x", "mute")
        y += HEAD + PANEL + GAP
    drawing.text(LEFT, y + 8, "calls, process after process \u2192", "mute")
    return drawing


def _ratios(row: RowResult, tokens: str) -> list[list[float]]:
    """Return the samples of each process over the row's median."""
    middle = row.latency[tokens].p50 if tokens in row.latency else None
    if middle is None or not usable(middle):
        return []
    scaled = [
        [ratio for ns in process if usable(ratio := ns / NS_PER_MS / middle)]
        for process in row.samples_ns.get(tokens, ())
    ]
    return [process for process in scaled if process]


def _panel(drawing: Drawing, scale: Scale, processes: Sequence[Sequence[float]], void: str) -> None:
    for tick in (0.5, 1.0, 2.0, 4.0, 8.0):
        if scale.low <= tick <= scale.high:
            drawing.line(LEFT, scale(tick), RIGHT, scale(tick), "axis" if tick == 1 else "grid")
            drawing.text(LEFT - 6, scale(tick) + 4, compact(tick), "end mute small")
    width = (RIGHT - LEFT - BETWEEN * (len(processes) - 1)) / len(processes)
    x = LEFT
    for number, process in enumerate(processes):
        if width > STEP:
            colour = number % 2
            tip = f"process {number + 1}: {len(process)} calls"
            _process(drawing, scale, process, x=x, width=width, colour=f"{colour}{void}", tip=tip)
        x += width + BETWEEN


def _process(
    drawing: Drawing,
    scale: Scale,
    process: Sequence[float],
    *,
    x: float,
    width: float,
    colour: str,
    tip: str,
) -> None:
    count = min(len(process), int(width / STEP))
    edges = [round(n * len(process) / count) for n in range(count + 1)]
    columns = [process[a:b] for a, b in pairwise(edges)]
    places = [x + width * (n + 0.5) / count for n in range(count)]
    upper = [f"{at:.1f},{scale(max(c)) - 0.5:.1f}" for at, c in zip(places, columns, strict=True)]
    lower = [f"{at:.1f},{scale(min(c)) + 0.5:.1f}" for at, c in zip(places, columns, strict=True)]
    middle = [f"{at:.1f},{scale(median(c)):.1f}" for at, c in zip(places, columns, strict=True)]
    drawing.add("path", f"area f{colour}", tip,
                d="M" + " L".join([*upper, *reversed(lower)]) + "Z")  # fmt: skip
    drawing.add("path", f"line thin l{colour}", d="M" + " L".join(middle))
