"""The columns of the table: one list, from which every rendering is made.

A column is a heading and a function from a row to its text. To add one, add it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asterisk.bench.results import Report, RowResult

NONE = "-"
UNAVAILABLE = "unavailable"
MB = 1e6


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its heading and the text of a row's cell."""

    heading: str
    show: Callable[[RowResult], str]


def fields(report: Report) -> list[Field]:
    """Return the columns of ``report``, in the order of the table."""
    buckets: Sequence[int] = report.settings["buckets"]
    return [
        Field("runtime", lambda row: row.title),
        Field("recipe", lambda row: row.recipe),
        *(Field(f"{tokens} tokens, ms", _latency(str(tokens))) for tokens in buckets),
        *(
            Field(f"texts/s, {_threads(n)}", _throughput(str(n)))
            for n in report.settings["threads"]
        ),
        *(
            Field(f"x {peer} at {_slashed(buckets)}", _faster(peer))
            for peer in report.settings["peers"]
        ),
        Field("start, ms", _start),
        Field("PSS, MB", _memory("steady", "pss")),
        Field("after 512", _memory("long", "pss")),
        Field("private", _memory("steady", "private")),
        Field("peak RSS", _memory("steady", "peak")),
        Field("model, MB", lambda row: f"{row.size / MB:.1f}"),
        Field("installed, MB", _installed),
        Field("cosine mean", _fidelity("cosine_mean", 5)),
        Field("min", _fidelity("cosine_min", 4)),
        Field("overlap@10", _fidelity("overlap_at_10", 3)),
    ]


def _latency(tokens: str) -> Callable[[RowResult], str]:
    def show(row: RowResult) -> str:
        figures = row.latency.get(tokens)
        if figures is None:
            return "failed"
        told = " / ".join(ms(value) for value in (figures.p50, figures.p90, figures.p95))
        return f"~~{told}~~" if row.below else told

    return show


def _throughput(threads: str) -> Callable[[RowResult], str]:
    return lambda row: f"{row.throughput[threads]:,.0f}" if threads in row.throughput else "failed"


def _faster(peer: str) -> Callable[[RowResult], str]:
    def show(row: RowResult) -> str:
        ratios = row.faster.get(peer)
        if not ratios:
            return NONE
        told = (ratios.get(tokens) for tokens in sorted(ratios, key=int))
        return " / ".join(NONE if ratio is None else f"{ratio:.1f}" for ratio in told)

    return show


def _start(row: RowResult) -> str:
    return f"{sum(row.start_ms.values()):.0f}" if row.start_ms else "failed"


def _memory(phase: str, kind: str) -> Callable[[RowResult], str]:
    def show(row: RowResult) -> str:
        if phase not in row.memory:
            return "failed"
        value = row.memory[phase][kind]
        return UNAVAILABLE if value is None else f"{value / MB:.1f}"

    return show


def _installed(row: RowResult) -> str:
    return NONE if row.installed is None else f"{row.installed['bytes'] / MB:.0f}"


def _fidelity(name: str, digits: int) -> Callable[[RowResult], str]:
    return lambda row: NONE if row.fidelity is None else f"{row.fidelity[name]:.{digits}f}"


def ms(value: float) -> str:
    """Show milliseconds with three significant digits."""
    return f"{value:.{2 if value >= 1 else 3}f}" if value < 10 else f"{value:.1f}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _slashed(numbers: Sequence[int]) -> str:
    return "/".join(map(str, numbers))
