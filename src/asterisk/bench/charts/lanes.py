"""Some figures a row, as dots on one line: throughput by threads, instructions by tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asterisk.bench.cells import is_emulated
from asterisk.bench.charts.parts import name, real, struck, x_axis
from asterisk.bench.charts.scale import compact, fit, usable
from asterisk.bench.results import Report, RowResult
from asterisk.bench.svg import SERIES, WIDTH, Drawing, width_of
from asterisk.bench.time_fields import threads_of

LEFT, RIGHT, TOP = 20.0, WIDTH - 24, 76.0
LANE = 44.0
Figures = Sequence[tuple[RowResult, Mapping[str, float]]]


def throughput(report: Report) -> Drawing | None:
    """Draw texts a second by threads; None where no row has any."""
    return _draw(
        report,
        [(row, row.throughput) for row in real(report)],
        {count: f"{count} thread{'' if count == '1' else 's'}" for count in threads_of(report)},
        ("throughput", "Throughput by threads", "Texts a second of a list of mixed lengths."),
        "texts/s",
    )


def instructions(report: Report) -> Drawing | None:
    """Draw the instructions an encode takes on emulated targets; None without any."""
    found = {tokens for row in report.rows for tokens in row.instructions}
    return _draw(
        report,
        [(row, row.instructions) for row in report.rows if is_emulated(report, row)],
        {tokens: f"{tokens} tokens" for tokens in sorted(found, key=int)},
        ("instructions", "Instructions an encode", "Counted under emulation; these are no times."),
        "million instructions",
    )


def _draw(
    report: Report,
    figures: Figures,
    series: Mapping[str, str],
    titles: tuple[str, str, str],
    unit: str,
) -> Drawing | None:
    shown = [
        (row, known)
        for row, values in figures
        if (known := {key: values[key] for key in series if usable(values.get(key))})
    ]
    if not shown:
        return None
    drawing = Drawing(*titles, height=TOP + LANE * len(shown) + 44)
    scale = fit((v for _, known in shown for v in known.values()), LEFT, RIGHT, zero=True)
    x_axis(drawing, scale, TOP - 8, TOP + LANE * len(shown), unit)
    colours = {key: index % SERIES for index, key in enumerate(series)}
    at = 18.0
    for key, words in series.items():
        _dot(drawing, (at, 44), colours[key], words, void=False)
        drawing.text(at + 12, 48, words, "mute")
        at += width_of(words) + 34
    for number, (row, known) in enumerate(shown):
        y = TOP + LANE * number + 30
        told = " / ".join(compact(value) for value in known.values())
        drawing.text(12, y - 14, name(report, row), f"name halo {struck(row)}", WIDTH - 130)
        drawing.text(WIDTH - 12, y - 14, told, f"end halo {struck(row)}")
        places = [scale(value) for value in known.values()]
        drawing.line(min(places), y, max(places), y, "axis")
        for key, value in known.items():
            tip = f"{series[key]}: {value:,.6g} {unit}"
            _dot(drawing, (scale(value), y), colours[key], tip, void=bool(struck(row)))
    return drawing


def _dot(
    drawing: Drawing, place: tuple[float, float], colour: int, tip: str, *, void: bool
) -> None:
    """Draw circle, square and triangle by turns: colour is not all that tells them apart."""
    x, y = place
    classes = f"f{colour} void" if void else f"f{colour}"
    if colour % 3 == 2:
        corners = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y + 5:.1f} {x - 6:.1f},{y + 5:.1f}"
        drawing.add("polygon", classes, tip, points=corners)
    elif colour % 3:
        drawing.add("rect", classes, tip, x=x - 5, y=y - 5, width=10, height=10)
    else:
        drawing.add("circle", classes, tip, cx=x, cy=y, r=6)
