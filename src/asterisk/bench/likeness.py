"""Whether two runs were made on machines alike, and under what other circumstances."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from asterisk.bench.limits import TESTED, Limit
from asterisk.bench.results import Report
from asterisk.common.errors import UsageError

MACHINE = ("cpu", "isa", "cores", "ram_bytes", "system", "architecture")


def needs_like_machines(limits: Mapping[str, Limit]) -> bool:
    """Tell whether times or memory are to be compared: where nothing is named, all is."""
    return not limits or any(name in limits for name in TESTED)


def refuse(apart: Sequence[str]) -> NoReturn:
    """Raise the UsageError that names how two machines are ``apart``."""
    raise UsageError(
        f"times and memory of unlike machines cannot be compared: {'; '.join(apart)} "
        "(--force does it all the same)"
    )


def unlike(old: Report, new: Report) -> list[str]:
    """Return how the machines differ on which rows of both were timed; emulated ones were not."""
    shared = {row.target for row in old.rows} & {row.target for row in new.rows}
    told = []
    for target in sorted(shared):
        if all(_kind(report, target) == "emu" for report in (old, new)):
            continue
        a, b = _machine(old, target), _machine(new, target)
        for name in MACHINE:
            # Of its memory, the firmware keeps a little more or less for itself.
            alike = _near if name == "ram_bytes" else operator.eq
            if not alike(a.get(name), b.get(name)):
                where = "" if target == "local" else f" on {target}"
                told.append(f"{name}{where} was {_short(a.get(name))}, is {_short(b.get(name))}")
    return told


def unlike_machine(old: Report, here: Mapping[str, Any]) -> list[str]:
    """Return how the machine ``here`` differs from the one that ``old`` was measured on."""
    own = replace(old, rows=[row for row in old.rows if row.target.startswith("local")])
    return unlike(own, replace(own, machine=dict(here), targets={}))


def _near(a: Any, b: Any) -> bool:
    numbers = [value for value in (a, b) if isinstance(value, int | float)]
    return a == b or (len(numbers) == 2 and abs(a - b) <= 0.1 * max(numbers))


def _kind(report: Report, target: str) -> str:
    return str(report.targets.get(target, {}).get("kind", target))


def _machine(report: Report, target: str) -> Mapping[str, Any]:
    machine = report.targets.get(target, {}).get("machine")
    return machine if isinstance(machine, dict) and machine else report.machine


def _short(value: Any) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in str(value)[:60])


def differences(old: Report, new: Report) -> list[str]:
    """Return what else is not the same, so that a cause is not looked for in the wrong place."""
    told = []
    if old.checkpoint.get("fingerprint") != new.checkpoint.get("fingerprint"):
        told.append("another checkpoint")
    for name in ("python", "kernel", "libc"):
        a, b = old.machine.get(name), new.machine.get(name)
        if a != b:
            told.append(f"{name} was {_short(a)}, is {_short(b)}")
    packages = [report.machine.get("packages") for report in (old, new)]
    a, b = (some if isinstance(some, dict) else {} for some in packages)
    for name in sorted(a.keys() & b.keys()):
        if a[name] != b[name]:
            told.append(f"{_short(name)} was {_short(a[name])}, is {_short(b[name])}")
    limits = [report.settings.get("max_memory") for report in (old, new)]
    if limits[0] != limits[1]:
        was, now = (_short(limit) if limit else "none" for limit in limits)
        told.append(f"the memory limit was {was}, is {now}: threads and longest texts may differ")
    efforts = [report.settings.get("effort") for report in (old, new)]
    a, b = (some if isinstance(some, dict) else {} for some in efforts)
    for name in sorted({*a, *b} - {"processes", "weighings"}):
        if a.get(name) != b.get(name):
            told.append(
                f"{_short(name)} a cell was {_short(a.get(name))}, is {_short(b.get(name))}"
            )
    return told
