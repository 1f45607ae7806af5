"""Memory after each phase of a process's life."""

from __future__ import annotations

from asterisk.bench.cells import MB
from asterisk.bench.charts.parts import name, real, spread, struck, y_axis
from asterisk.bench.charts.scale import fit, usable
from asterisk.bench.results import Report
from asterisk.bench.svg import SERIES, WIDTH, Drawing, shorten

LEFT, RIGHT, TOP, BOTTOM = 58.0, WIDTH - 200, 62.0, 340.0
ORDER = {
    "start": "the start of Python",
    "import": "importing the engine",
    "load": "loading",
    "first": "the first vector",
    "steady": "200 calls (steady)",
    "long": "one text of 512 tokens (long)",
    "batch": "a batch of 32 texts of 128 tokens",
}
LINE = 16.0  # between two names


def draw(report: Report) -> Drawing | None:
    """Draw PSS as steps from phase to phase, a line a row; None where no row has any."""
    rows = [row for row in real(report) if any(usable(p.get("pss")) for p in row.memory.values())]
    if not rows:
        return None
    found = dict.fromkeys(phase for row in rows for phase in row.memory)
    known = list(ORDER)
    phases = sorted(found, key=lambda phase: known.index(phase) if phase in ORDER else len(known))
    values = [
        [(row.memory.get(phase, {}).get("pss") or 0) / MB for phase in phases] for row in rows
    ]
    bottom = max(BOTTOM, TOP + LINE * len(rows))
    scale = fit((value for line in values for value in line), bottom, TOP, zero=True)
    drawing = Drawing(
        "memory",
        "Memory by phase",
        f"PSS after {', '.join(ORDER.get(phase, phase) for phase in phases)}.",
        bottom + 40,
    )
    y_axis(drawing, scale, LEFT, RIGHT, "PSS, MB")
    width = (RIGHT - LEFT) / len(phases)
    for number, phase in enumerate(phases):
        x = LEFT + width * number
        if number:
            drawing.line(x, TOP, x, bottom, "grid")
        drawing.text(x + width / 2, bottom + 16, phase, "middle mute small")
    ends = []
    for index, (row, line) in enumerate(zip(rows, values, strict=True)):
        tip = f"{name(report, row)}: " + ", ".join(
            f"{phase} {value:.1f}" for phase, value in zip(phases, line, strict=True) if value
        )
        steps = _steps([scale(value) if usable(value) else None for value in line], width)
        drawing.add("path", f"l{index % SERIES} d{index % SERIES} line", tip, d=steps)
        last = next(n for n in reversed(range(len(line))) if usable(line[n]))
        ends.append((LEFT + width * (last + 1), scale(line[last])))
    labels = spread([y for _, y in ends], LINE, TOP, bottom)
    for index, (row, (x, y), at) in enumerate(zip(rows, ends, labels, strict=True)):
        drawing.line(x, y, RIGHT + 16, at, f"l{index % SERIES} line thin")
        words = shorten(name(report, row), WIDTH - RIGHT - 24, 11)
        drawing.text(RIGHT + 20, at + 4, words, f"small {struck(row)}".strip())
    return drawing


def _steps(ys: list[float | None], width: float) -> str:
    """Return a path that stands level through each phase and breaks where nothing is known."""
    path, before = [], None
    for number, y in enumerate(ys):
        if y is not None:
            x = LEFT + width * number
            path.append(f"{'M' if before is None else 'L'}{x:.1f},{y:.1f} L{x + width:.1f},{y:.1f}")
        before = y
    return " ".join(path)
