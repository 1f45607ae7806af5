"""One run against an earlier one: what got worse, what did not, and what cannot be told.

Times and PSS differ from process to process, so a rise has to be both larger than its limit and
beyond chance: Mann-Whitney over the processes, with all tests of a comparison held to 5 % together
(Holm). Fidelity, size and instruction counts are exact, and are held to their limits as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from asterisk.bench.likeness import differences, needs_like_machines, refuse, unlike
from asterisk.bench.limits import DEFAULTS, TESTED, Limit
from asterisk.bench.results import Report, RowResult
from asterisk.bench.statistics import ENOUGH, holm, mann_whitney, ratio

ALPHA = 0.05
STEADY = "steady"
MILLION = 1e6  # bytes a MB, ns a ms
Verdict = Literal["ok", "better", "regression", "inconclusive", "missing"]
BAD: tuple[Verdict, ...] = ("regression", "missing")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one row, old and new.

    ``old`` and ``new`` are medians over ``processes`` of each side where the figure is tested;
    ``interval`` holds the ratio of the two with 95 % confidence and ``p`` is adjusted for all tests
    of the comparison. ``why`` explains a verdict that the numbers do not.
    """

    row: str
    target: str
    figure: str
    detail: str
    old: float | None
    new: float | None
    verdict: Verdict
    gated: bool
    processes: tuple[int, int] | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether this is what --fail-on is for."""
        return self.gated and self.verdict in BAD


@dataclass(frozen=True, slots=True)
class Comparison:
    """All lines, in the order of the new run's rows, and what a reader should know besides."""

    lines: list[Line]
    notes: list[str]

    @property
    def failed(self) -> list[Line]:
        """What is worse than allowed, or gone."""
        return [line for line in self.lines if line.failed]


def compare(
    old: Report, new: Report, limits: Mapping[str, Limit], *, force: bool = False
) -> Comparison:
    """Compare ``new`` with ``old``; only figures that ``limits`` names can fail.

    UsageError for unlike machines, unless ``force``. With no more than exact figures in ``limits``
    they are no reason to refuse: times and memory are then left out.
    """
    apart = unlike(old, new)
    timed = not apart or force
    if apart and not force and needs_like_machines(limits):
        refuse(apart)
    notes = [f"unlike machines: {line}" for line in apart]
    if apart and not timed:
        notes.append("times and memory are therefore not compared")
    lines: list[Line] = []
    before = {(row.name, row.target): row for row in old.rows}
    for row in new.rows:
        earlier = before.pop((row.name, row.target), None)
        if earlier is None:
            notes.append(f"{_name(row)} is not in the old report")
        else:
            lines += _row(earlier, row, limits, timed=timed)
    lines += [_gone(row, limits) for row in before.values() if _expected(row, new)]
    lines = _tested(lines, limits)
    for name in limits:
        if not any(line.figure == name for line in lines) and (timed or name not in TESTED):
            notes.append(f"{name} is in neither report: nothing was judged by it")
    return Comparison(lines, notes + differences(old, new))


def _name(row: RowResult) -> str:
    return row.name if row.target == "local" else f"{row.name} on {row.target}"


def _expected(row: RowResult, new: Report) -> bool:
    """Tell whether the new run was asked for ``row``."""
    asked = [*_list(new.settings, "runtimes"), *_list(new.settings, "peers")]
    targets = _list(new.settings, "targets") or ["local"]
    return row.name in asked and row.target in targets


def _list(settings: Mapping[str, Any], name: str) -> list[Any]:
    value = settings.get(name)
    return value if isinstance(value, list) else []


def _row(
    old: RowResult, new: RowResult, limits: Mapping[str, Limit], *, timed: bool
) -> Iterator[Line]:
    void = "; ".join(
        [f"old run: {reason}" for reason in [*old.invalid, *old.below]]
        + [f"new run: {reason}" for reason in [*new.invalid, *new.below]]
    )
    if timed:
        for tokens in sorted({*old.samples_ns, *new.samples_ns}, key=_number):
            sides = [_medians(row.samples_ns.get(tokens, [])) for row in (old, new)]
            yield _processes(
                old, "p50", f"{tokens} tokens, ms", sides, gated="p50" in limits, void=void
            )
        sides = [_pss(row) for row in (old, new)]
        if any(sides):
            sharing = "another process maps the same engine" if old.shared or new.shared else ""
            yield _processes(old, "pss", "MB", sides, gated="pss" in limits, void=sharing)
    yield from _exact(old, new, limits)


def _processes(
    row: RowResult,
    figure: str,
    detail: str,
    sides: Sequence[Sequence[float]],
    *,
    gated: bool,
    void: str,
) -> Line:
    """Describe one tested figure, in ns or bytes; the other tests bear on its verdict too."""
    old, new = sides
    line = Line(
        row.name,
        row.target,
        figure,
        detail,
        median(old) / MILLION if old else None,
        median(new) / MILLION if new else None,
        "inconclusive",
        gated,
        (len(old), len(new)),
    )
    if not old:
        return replace(line, why="not in the old report")
    if not new:
        return replace(line, verdict="missing")
    line = replace(line, interval=ratio(old, new)[1])
    if void:
        return replace(line, why=void)
    if min(len(old), len(new)) < ENOUGH:
        return replace(line, why=f"fewer than {ENOUGH} processes")
    return replace(line, p=mann_whitney(old, new))


def _tested(lines: Sequence[Line], limits: Mapping[str, Limit]) -> list[Line]:
    """Give every tested line the p that all tests together leave it, and its verdict."""
    ps = iter(holm([line.p for line in lines if line.p is not None]))
    return [line if line.p is None else _decide(line, next(ps), limits) for line in lines]


def _decide(line: Line, p: float, limits: Mapping[str, Limit]) -> Line:
    limit = limits.get(line.figure, DEFAULTS[line.figure])
    old, new = line.old or 0.0, line.new or 0.0
    verdict: Verdict = "ok"
    why = ""
    if limit.exceeded(old, new):
        verdict = "regression" if p < ALPHA else "inconclusive"
    elif limit.exceeded(new, old):
        verdict = "better" if p < ALPHA else "inconclusive"
    if verdict == "inconclusive":
        why = "may be chance"
    return replace(line, p=p, verdict=verdict, why=why)


def _exact(old: RowResult, new: RowResult, limits: Mapping[str, Limit]) -> Iterator[Line]:
    def line(figure: str, detail: str, a: float | None, b: float | None) -> Line:
        start = Line(new.name, new.target, figure, detail, a, b, "ok", figure in limits)
        limit = limits.get(figure, DEFAULTS[figure])
        if b is None:
            return replace(start, verdict="missing")
        if limit.floor is not None:
            # What a system of others computes is its own affair, as long as it does not change.
            return _floored(start, replace(limit, floor=0.0) if new.peer else limit)
        if a is None:
            return replace(start, why="not in the old report")
        if limit.exceeded(a, b):
            return replace(start, verdict="regression")
        return replace(start, verdict="better") if limit.exceeded(b, a) else start

    for figure, name in (("cosine", "cosine_mean"), ("overlap", "overlap_at_10")):
        a, b = (((row.fidelity or {}).get(name)) for row in (old, new))
        if a is not None or b is not None:
            found = line(figure, "mean to FP32" if figure == "cosine" else "at 10", a, b)
            if figure == "cosine" and new.below and not old.below:
                found = replace(found, verdict="regression", why="; ".join(new.below))
            yield found
    yield line("size", "MB", old.size / MILLION, new.size / MILLION)
    for tokens in sorted({*old.instructions, *new.instructions}, key=_number):
        told = f"{tokens} tokens, million"
        yield line("instructions", told, old.instructions.get(tokens), new.instructions.get(tokens))


def _floored(line: Line, limit: Limit) -> Line:
    """Judge a figure that must be large: never below its floor, nor much below what it was."""
    new, floor, drop = line.new or 0.0, limit.floor or 0.0, limit.amount or 0.0
    if not new >= floor:
        return replace(line, verdict="regression", why=f"below {floor:g}")
    if line.old is None:
        return replace(line, why="not in the old report")
    if line.old - new > drop:
        return replace(line, verdict="regression", why=f"{line.old - new:.4f} lower")
    return replace(line, verdict="better") if new - line.old > drop else line


def _gone(row: RowResult, limits: Mapping[str, Limit]) -> Line:
    told = "the row gave no result"
    return Line(row.name, row.target, "row", "", None, None, "missing", bool(limits), why=told)


def _medians(processes: Sequence[Sequence[int]]) -> list[float]:
    return [median(samples) for samples in processes if samples and min(samples) > 0]


def _pss(row: RowResult) -> list[float]:
    read = [weighing.get(STEADY, {}).get("pss") for weighing in row.weighings]
    return [value for value in read if value is not None and value > 0]


def _number(text: str) -> tuple[int, str]:
    return (int(text[:9]) if text.isascii() and text.isdigit() else 0, text)
