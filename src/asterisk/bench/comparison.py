"""One run against an earlier one: what got worse, what did not, and what cannot be decided.

Times and PSS differ from process to process, so a rise has to be both larger than its limit and
beyond chance: Mann-Whitney over the processes, with all tests of a comparison held to 5 % together
(Holm).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal

from asterisk.bench import machine
from asterisk.bench.columns import NONE
from asterisk.bench.report import grid, plain
from asterisk.bench.results import Report, RowResult
from asterisk.bench.statistics import MIN_PROCESSES, holm, mann_whitney, ratio
from asterisk.common.errors import UsageError

ALPHA = 0.05
MILLION = 1e6  # bytes a MB, ns a ms
NOT_IN_OLD = "not in the old report"
TESTED = ("p50", "pss")  # told from noise by a test over processes; the others are exact
FIGURES = (*TESTED, "cosine", "overlap", "size", "instructions")
FLOORS, BYTES = ("cosine", "overlap"), ("pss", "size")
MACHINE = ("cpu", "isa", "cores", "ram_bytes", "system", "architecture")
HEADINGS = ("row", "figure", "old", "new", "change", "95 %", "p", "processes", "verdict")
DIGITS = {"cosine": 5, "overlap": 4, "p50": 4}
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_MB = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)MB")
_SHARE = re.compile(r"(0?\.[0-9]{1,9}|1(?:\.0{1,9})?)")
Verdict = Literal["ok", "better", "regression", "inconclusive", "missing"]


@dataclass(frozen=True, slots=True)
class Limit:
    """By how much a figure may get worse; one that must not be small has a ``floor``."""

    share: float = 0.0  # of the old one
    amount: float | None = None  # instead, if given: in MB where the figure is bytes
    floor: float | None = None  # it must never be below; it may drop by ``amount``

    def exceeded(self, old: float, new: float) -> bool:
        """Return whether ``new`` is more than ``old``, positive, by more than allowed."""
        return new - old > self.amount if self.amount is not None else new > old * (1 + self.share)


# A different CPU rounds differently, by less than these; a recipe that lost something, by more.
DEFAULTS: Mapping[str, Limit] = {
    "p50": Limit(0.05),
    "pss": Limit(0.03),
    "cosine": Limit(amount=0.001, floor=0.0),
    "overlap": Limit(amount=0.01, floor=0.0),
    "size": Limit(0.01),
    "instructions": Limit(0.01),
}


def parse_limits(text: str) -> dict[str, Limit]:
    """Read ``name:limit`` pairs with commas between; UsageError, one line, for anything else."""
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        name, colon, value = part.strip().partition(":")
        if name not in FIGURES or not colon:
            raise UsageError(
                f"--fail-on takes name:limit with commas between, not {part[:40]!r}; "
                f"there are: {', '.join(FIGURES)}"
            )
        if name in limits:
            raise UsageError(f"--fail-on has {name} twice")
        limits[name] = _limit(name, value)
    return limits


def _limit(name: str, value: str) -> Limit:
    expected = "a percentage, 5%, "
    if name in FLOORS:
        expected = "the least it may be, 0.995 say, "
        if found := _SHARE.fullmatch(value):
            return Limit(amount=DEFAULTS[name].amount, floor=float(found[1]))
    elif found := _PERCENT.fullmatch(value):
        return Limit(share=float(found[1]) / 100)
    elif name in BYTES:
        expected = "a percentage, 5% or 5MB, "
        if found := _MB.fullmatch(value):
            return Limit(amount=float(found[1]))
    raise UsageError(f"--fail-on {name} takes {expected}not {value[:40]!r}")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one row, old and new."""

    row: str
    target: str
    figure: str
    detail: str
    old: float | None  # as ``new`` the median over ``processes`` of its side, if it is tested
    new: float | None
    verdict: Verdict
    gated: bool
    processes: tuple[int, int] | None = None
    interval: tuple[float, float] | None = None  # of the ratio of the two, 95 % confidence
    p: float | None = None  # adjusted for all tests of the comparison
    why: str = ""  # explains a verdict that the numbers do not

    @property
    def failed(self) -> bool:
        """Whether ``--fail-on`` makes the command fail for it."""
        return self.gated and self.verdict in ("regression", "missing")

    @property
    def name(self) -> str:
        """What the line is about, for a terminal."""
        return plain(" ".join(f"{_on(self.row, self.target)} {self.figure} {self.detail}".split()))


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

    UsageError for unlike machines, unless ``force`` or only exact figures are in ``limits``.
    """
    unlike = machine_differences(old, new)
    timed = not unlike or force
    if not force:
        check_machines(unlike, limits)
    notes = [f"unlike machines: {line}" for line in unlike]
    notes += [] if timed else ["times and memory are therefore not compared"]
    lines: list[Line] = []
    before = {(row.name, row.target): row for row in old.rows}
    for row in new.rows:
        earlier = before.pop((row.name, row.target), None)
        if earlier is None:
            notes.append(f"{_on(row.name, row.target)} is not in the old report")
            continue
        lines += _tested(earlier, row, limits) if timed else ()
        lines += _exact(earlier, row, limits)
    asked = [*_list(new.settings, "runtimes"), *_list(new.settings, "peers")]
    targets = _list(new.settings, "targets") or ["local"]
    why = "the row gave no result"
    lines += [
        Line(row.name, row.target, "row", "", None, None, "missing", bool(limits), why=why)
        for row in before.values()
        if row.name in asked and row.target in targets
    ]
    ps = iter(holm([line.p for line in lines if line.p is not None]))
    lines = [line if line.p is None else _decided(line, next(ps), limits) for line in lines]
    for name in limits:
        if not any(line.figure == name for line in lines) and (timed or name not in TESTED):
            notes.append(f"{name} is in neither report: nothing was judged by it")
    return Comparison(lines, notes + differences(old, new))


def _on(row: str, target: str) -> str:
    return row if target == "local" else f"{row} on {target}"


def _list(settings: Mapping[str, Any], name: str) -> list[Any]:
    value = settings.get(name)
    return value if isinstance(value, list) else []


def _tested(old: RowResult, new: RowResult, limits: Mapping[str, Limit]) -> Iterator[Line]:
    start = partial(Line, old.name, old.target, old=None, new=None, verdict="inconclusive")
    void = [f"old run: {reason}" for reason in [*old.invalid, *old.below]]
    void += [f"new run: {reason}" for reason in [*new.invalid, *new.below]]
    for tokens in sorted({*old.samples_ns, *new.samples_ns}, key=_number):
        sides = [
            [median(taken) for taken in row.samples_ns.get(tokens, []) if taken and min(taken) > 0]
            for row in (old, new)
        ]
        line = start("p50", f"{tokens} tokens, ms", gated="p50" in limits)
        yield _over_processes(line, sides, "; ".join(void))
    sides = [
        [pss for each in row.weighings if (pss := each.get("steady", {}).get("pss")) and pss > 0]
        for row in (old, new)
    ]
    if any(sides):
        shared = "another process maps the same engine" if old.shared or new.shared else ""
        yield _over_processes(start("pss", "MB", gated="pss" in limits), sides, shared)


def _over_processes(line: Line, sides: Sequence[Sequence[float]], void: str) -> Line:
    """Describe one tested figure, in ns or bytes; the other tests bear on its verdict too."""
    old, new = sides
    medians = [median(side) / MILLION if side else None for side in sides]
    line = replace(line, old=medians[0], new=medians[1], processes=(len(old), len(new)))
    if not old:
        return replace(line, why=NOT_IN_OLD)
    if not new:
        return replace(line, verdict="missing")
    if not void and min(line.processes or ()) < MIN_PROCESSES:
        void = f"fewer than {MIN_PROCESSES} processes"
    p = None if void else mann_whitney(old, new)
    return replace(line, interval=ratio(old, new)[1], why=void, p=p)


def _decided(line: Line, p: float, limits: Mapping[str, Limit]) -> Line:
    """Give a tested line the ``p`` that all tests together leave it, and its verdict."""
    verdict, why = _judged(limits.get(line.figure, DEFAULTS[line.figure]), line.old, line.new)
    if verdict != "ok" and p >= ALPHA:
        verdict, why = "inconclusive", "may be chance"
    return replace(line, p=p, verdict=verdict, why=why)


def _judged(limit: Limit, old: float | None, new: float | None) -> tuple[Verdict, str]:
    """Return the verdict on a figure as it is, and what explains it."""
    if new is None:
        return "missing", ""
    if limit.floor is not None and not new >= limit.floor:
        return "regression", f"below {limit.floor:g}"
    if old is None:
        return "ok", NOT_IN_OLD
    low, high = (old, new) if limit.floor is None else (new, old)
    if limit.exceeded(low, high):
        return "regression", "" if limit.floor is None else f"{old - new:.4f} lower"
    return ("better" if limit.exceeded(high, low) else "ok"), ""


def _exact(old: RowResult, new: RowResult, limits: Mapping[str, Limit]) -> Iterator[Line]:
    def line(figure: str, detail: str, a: float | None, b: float | None) -> Line:
        limit = limits.get(figure, DEFAULTS[figure])
        if limit.floor and new.peer:
            # What a system of others computes is its own affair, as long as it does not change.
            limit = replace(limit, floor=0.0)
        verdict, why = _judged(limit, a, b)
        return Line(new.name, new.target, figure, detail, a, b, verdict, figure in limits, why=why)

    figures = (("cosine", "cosine_mean", "mean to FP32"), ("overlap", "overlap_at_10", "at 10"))
    for figure, name, detail in figures:
        a, b = ((row.fidelity or {}).get(name) for row in (old, new))
        if a is not None or b is not None:
            found = line(figure, detail, a, b)
            if figure == "cosine" and new.below and not old.below:
                found = replace(found, verdict="regression", why="; ".join(new.below))
            yield found
    yield line("size", "MB", old.size / MILLION, new.size / MILLION)
    for tokens in sorted({*old.instructions, *new.instructions}, key=_number):
        counts = old.instructions.get(tokens), new.instructions.get(tokens)
        yield line("instructions", f"{tokens} tokens, million", *counts)


def _number(text: str) -> tuple[int, str]:
    return (int(text[:9]) if text.isascii() and text.isdigit() else 0, text)


def check_machines(unlike: Sequence[str], limits: Mapping[str, Limit]) -> None:
    """Raise UsageError if ``unlike`` machines are to be compared by more than exact figures."""
    if unlike and (not limits or any(name in limits for name in TESTED)):
        raise UsageError(
            f"times and memory of unlike machines cannot be compared: {'; '.join(unlike)} "
            "(--force does it all the same)"
        )


def machine_differences(old: Report, new: Report) -> list[str]:
    """Return how the machines differ on which rows of both were timed; emulated ones were not."""
    lines = []
    for target in sorted({row.target for row in old.rows} & {row.target for row in new.rows}):
        kinds = [run.targets.get(target, {}).get("kind", target) for run in (old, new)]
        if kinds == ["emu", "emu"]:
            continue
        a, b = _machine(old, target), _machine(new, target)
        for name in MACHINE:
            x, y = a.get(name), b.get(name)
            if name == "ram_bytes" and isinstance(x, int | float) and isinstance(y, int | float):
                # Of its memory, the firmware keeps a little more or less for itself.
                y = x if abs(x - y) <= 0.1 * max(x, y) else y
            lines += _changed(_on(name, target), x, y)
    return lines


def check_here(old: Report, limits: Mapping[str, Limit]) -> None:
    """Raise UsageError as `check_machines` if this machine is not that of ``old``."""
    own = replace(old, rows=[row for row in old.rows if row.target.startswith("local")])
    here = replace(own, machine=machine.describe(()), targets={})
    check_machines(machine_differences(own, here), limits)


def _machine(report: Report, target: str) -> Mapping[str, Any]:
    described = report.targets.get(target, {}).get("machine")
    return described if isinstance(described, dict) and described else report.machine


def _changed(what: str, old: Any, new: Any) -> list[str]:
    return [f"{what} was {_short(old)}, is {_short(new)}"] if old != new else []


def _short(value: Any) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in str(value)[:60])


def differences(old: Report, new: Report) -> list[str]:
    """Return what else is not the same, so that a cause is not looked for in the wrong place."""

    def dicts(part: str, name: str) -> list[dict[str, Any]]:
        values = [getattr(report, part).get(name) for report in (old, new)]
        return [value if isinstance(value, dict) else {} for value in values]

    lines = []
    if old.checkpoint.get("fingerprint") != new.checkpoint.get("fingerprint"):
        lines.append("another checkpoint")
    for name in ("python", "kernel", "libc"):
        lines += _changed(name, old.machine.get(name), new.machine.get(name))
    a, b = dicts("machine", "packages")
    for name in sorted(a.keys() & b.keys()):
        lines += _changed(_short(name), a[name], b[name])
    was, now = (report.settings.get("max_memory") for report in (old, new))
    for line in _changed("the memory limit", was or "none", now or "none"):
        lines.append(f"{line}: threads and longest texts may differ")
    a, b = dicts("settings", "effort")
    for name in sorted({*a, *b} - {"processes", "weighings"}):
        lines += _changed(f"{_short(name)} a cell", a.get(name), b.get(name))
    return lines


def table(comparison: Comparison) -> str:
    """Return the table with the notes under it; what fails is set in bold."""
    cells = [[cell[:200] for cell in _cells(line)] for line in comparison.lines]
    few = sum(
        line.verdict == "inconclusive" and min(line.processes or (MIN_PROCESSES,)) < MIN_PROCESSES
        for line in comparison.lines
    )
    notes = [f"- {plain(note[:200])}" for note in comparison.notes]
    if few:
        advice = f"measure both sides with --processes {MIN_PROCESSES} or more"
        notes.append(f"- {few} figures have too few processes for a test: {advice}")
    counts = Counter(line.verdict for line in comparison.lines)
    total = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    parts = [grid([HEADINGS, *cells], (0, 1, 8)), *(["", *notes] if notes else [])]
    return "\n".join([*parts, "", f"{total or 'nothing to compare'}."]) + "\n"


def _cells(line: Line) -> list[str]:
    verdict = f"**{line.verdict}**" if line.failed else line.verdict
    digits = DIGITS.get(line.figure, 2)
    change = NONE
    if line.old and line.new is not None:
        change = _percent(line.new / line.old)
        if line.figure in FLOORS:
            change = f"{line.new - line.old:+.5f}"
    return [
        _on(line.row, line.target),
        f"{line.figure} {line.detail}".strip(),
        *(NONE if value is None else f"{value:.{digits}f}" for value in (line.old, line.new)),
        change,
        NONE if line.interval is None else " .. ".join(map(_percent, line.interval)),
        NONE if line.p is None else f"{line.p:.2g}",
        NONE if line.processes is None else "{}/{}".format(*line.processes),
        f"{verdict}: {line.why}" if line.why else verdict,
    ]


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%"
