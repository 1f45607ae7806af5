"""Latency against memory, with fidelity as colour and shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from asterisk.bench.cells import MB, ms
from asterisk.bench.charts.parts import name, real, steady, struck, x_axis, y_axis
from asterisk.bench.charts.scale import fit, usable
from asterisk.bench.results import Report, RowResult
from asterisk.bench.svg import GRADES, WIDTH, Drawing, shorten, width_of

LEFT, RIGHT, TOP, BOTTOM = 58.0, WIDTH - 16, 62.0, 370.0
GRADED = (0.9999, 0.999, 0.99)  # mean cosine to FP32
SIZE = 6.0
ROOM = 245.0  # for a name
ROUNDS = 6
_NAMES = (*(f"\u2265 {least:g}" for least in GRADED), f"< {GRADED[-1]:g}", "not known")
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A row's place."""

    row: RowResult
    x: float
    y: float


def draw(report: Report) -> Drawing | None:
    """Draw p50 against PSS, lower left being better; None where no row has both."""
    tokens = steady(report)
    known = [
        (row, (pss or 0) / MB, row.latency[tokens].p50)
        for row in real(report)
        if tokens in row.latency
        and usable(pss := row.memory.get("steady", {}).get("pss"))
        and usable(row.latency[tokens].p50)
    ]
    if not known:
        return None
    without = len(real(report)) - len(known)
    note = f"p50 of one text of {tokens} tokens over PSS after 200 calls; lower left is better."
    if without:
        note += f" {without} row{'s are' if without > 1 else ' is'} not shown for want of a figure."
    drawing = Drawing("latency-memory", "Latency against memory", note, BOTTOM + 82)
    xs = fit((x for _, x, _ in known), LEFT, RIGHT)
    ys = fit((y for _, _, y in known), BOTTOM, TOP)
    x_axis(drawing, xs, TOP, BOTTOM, "PSS, MB")
    y_axis(drawing, ys, LEFT, RIGHT, f"p50 at {tokens} tokens, ms")
    points = [Point(row, xs(x), ys(y)) for row, x, y in known]
    for point, box in zip(points, place(points, report), strict=True):
        _label(drawing, point, box, shorten(name(report, point.row), ROOM))
    for point, (row, x, y) in zip(points, known, strict=True):
        tip = f"{name(report, row)}: {x:.1f} MB, {ms(y)} ms{_cosine(row)}"
        _mark(drawing, point.x, point.y, grade(row), tip)
        if struck(row):
            for way in (-1, 1):
                arm = SIZE + 3
                drawing.line(point.x - arm, point.y - way * arm, point.x + arm,
                             point.y + way * arm, "cross")  # fmt: skip
    drawing.text(LEFT, BOTTOM + 52, "Mean cosine to FP32; crossed out: below thresholds or void",
                 "mute small")  # fmt: skip
    _legend(drawing)
    return drawing


def grade(row: RowResult) -> int:
    """Return which of the five grades of fidelity ``row`` has; the last is for not known."""
    cosine = (row.fidelity or {}).get("cosine_mean")
    if cosine is None:
        return GRADES - 1
    return next((n for n, least in enumerate(GRADED) if cosine >= least), GRADES - 2)


def place(points: Sequence[Point], report: Report) -> list[Box]:
    """Return a box for each point's name: near it, and clear of the other names and points.

    One after another, and again while some overlap: what comes later may need the room.
    """
    widths = [width_of(shorten(name(report, point.row), ROOM)) for point in points]
    marks = [_around(point.x, point.y) for point in points]
    boxes: dict[int, Box] = {}
    for _ in range(ROUNDS):
        for index, (point, width) in enumerate(zip(points, widths, strict=True)):
            others = [*marks[:index], *marks[index + 1 :]]
            others += [box for number, box in boxes.items() if number != index]
            boxes[index] = min(_candidates(point, width), key=partial(_cost, others=others))
        names = list(boxes.values())
        if not any(_overlap(a, b) for n, a in enumerate(names) for b in names[:n]):
            break
    return [boxes[index] for index in range(len(points))]


def _cost(box: Box, others: Sequence[Box]) -> float:
    outside = box[0] < LEFT or box[2] > RIGHT or box[1] < TOP or box[3] > BOTTOM
    return sum(_overlap(box, other) for other in others) + 1e6 * outside


def _candidates(point: Point, width: float) -> list[Box]:
    found = []
    for away in (0.0, 14.0, 28.0, 44.0, 62.0, 84.0, 110.0):
        gap = SIZE + 4 + away
        for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            left = point.x + dx * gap - (width if dx < 0 else width / 2 if dx == 0 else 0)
            middle = point.y + dy * (gap + 6 if dx == 0 or away else gap)
            found.append((left, middle - 8, left + width, middle + 8))
    return found


def _around(x: float, y: float) -> Box:
    return x - SIZE - 2, y - SIZE - 2, x + SIZE + 2, y + SIZE + 2


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _label(drawing: Drawing, point: Point, box: Box, words: str) -> None:
    x, y = min(max(point.x, box[0]), box[2]), min(max(point.y, box[1]), box[3])
    if abs(x - point.x) + abs(y - point.y) > SIZE + 12:
        drawing.line(point.x, point.y, x, y, "axis")
    drawing.text(box[0], box[3] - 4, words, f"halo {struck(point.row)}".strip())


def _mark(drawing: Drawing, x: float, y: float, grade_: int, tip: str) -> None:
    """Draw a shape of its own for each grade, so that colour is not all that tells them apart."""
    classes, r = f"q{grade_} mark", SIZE
    if grade_ in (0, GRADES - 1):
        drawing.add("circle", classes, tip, cx=x, cy=y, r=r)
        return
    corners = {
        1: ((-r, -r), (r, -r), (r, r), (-r, r)),
        2: ((0, -r - 1), (r + 1, r), (-r - 1, r)),
        3: ((0, -r - 2), (r + 2, 0), (0, r + 2), (-r - 2, 0)),
    }[grade_]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    drawing.add("polygon", classes, tip, points=points)


def _legend(drawing: Drawing) -> None:
    at = LEFT + SIZE
    for number, words in enumerate(_NAMES):
        _mark(drawing, at, BOTTOM + 68, number, words)
        drawing.text(at + 12, BOTTOM + 72, words, "mute")
        at += width_of(words) + 36


def _cosine(row: RowResult) -> str:
    cosine = (row.fidelity or {}).get("cosine_mean")
    return "" if cosine is None else f", mean cosine {cosine:.5f}"
