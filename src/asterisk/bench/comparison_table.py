"""A comparison as one table."""

from __future__ import annotations

from collections import Counter

from asterisk.bench.comparison import Comparison, Line
from asterisk.bench.render import grid, plain
from asterisk.bench.statistics import ENOUGH

NONE = "-"
HEADINGS = ("row", "figure", "old", "new", "change", "95 %", "p", "processes", "verdict")
LEFT = (0, 1, 8)
DIGITS = {"cosine": 5, "overlap": 4, "p50": 4}


def table(comparison: Comparison) -> str:
    """Return the table with the notes under it; what fails is set in bold."""
    text = grid(
        [HEADINGS, *([cell[:200] for cell in _cells(line)] for line in comparison.lines)], LEFT
    )
    notes = [f"- {plain(note[:200])}" for note in (*comparison.notes, *_unsure(comparison))]
    return "\n".join([text, *(["", *notes] if notes else []), "", _count(comparison)]) + "\n"


def name(line: Line) -> str:
    """Return what a line is about."""
    where = "" if line.target == "local" else f" on {line.target}"
    return plain(" ".join(f"{line.row}{where} {line.figure} {line.detail}".split()))


def _cells(line: Line) -> list[str]:
    where = "" if line.target == "local" else f" on {line.target}"
    verdict = f"**{line.verdict}**" if line.failed else line.verdict
    return [
        line.row + where,
        f"{line.figure} {line.detail}".strip(),
        _value(line, line.old),
        _value(line, line.new),
        _change(line),
        NONE if line.interval is None else " .. ".join(map(_percent, line.interval)),
        NONE if line.p is None else f"{line.p:.2g}",
        NONE if line.processes is None else "{}/{}".format(*line.processes),
        f"{verdict}: {line.why}" if line.why else verdict,
    ]


def _value(line: Line, value: float | None) -> str:
    return NONE if value is None else f"{value:.{DIGITS.get(line.figure, 2)}f}"


def _change(line: Line) -> str:
    if line.old is None or line.new is None or not line.old:
        return NONE
    if line.figure in ("cosine", "overlap"):
        return f"{line.new - line.old:+.5f}"
    return _percent(line.new / line.old)


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"


def _unsure(comparison: Comparison) -> list[str]:
    few = [line for line in comparison.lines if line.processes and line.verdict == "inconclusive"]
    few = [line for line in few if min(line.processes or (0,)) < ENOUGH]
    if not few:
        return []
    return [
        f"{len(few)} figures have too few processes for a test: measure both sides with "
        f"--processes {ENOUGH} or more"
    ]


def _count(comparison: Comparison) -> str:
    counts = Counter(line.verdict for line in comparison.lines)
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    return f"{told or 'nothing to compare'}."
