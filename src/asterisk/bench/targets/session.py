"""What a run asks of a target while it is open."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from asterisk.bench.plan import Row
from asterisk.bench.targets.parse import Local, Ssh
from asterisk.common.errors import EngineError

INPUTS = ("path", "texts")  # of a spec: files or folders that the worker reads
OUTPUT = "vectors"  # of a spec: the file that it writes


class TargetError(EngineError):
    """A target that cannot be used at all; the message is one line."""


class Unavailable(TargetError):
    """An emulation that cannot be had here; the message is one line."""


class Session(Protocol):
    """A target that is ready to run workers.

    ``timed`` is whether its clock means anything. Everything here raises
    `asterisk.bench.spawn.CellError` for what one cell cannot have.
    """

    timed: bool

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` there; paths in ``spec`` are of this machine on both ways."""
        ...

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Return `asterisk.bench.machine.describe` of the target."""
        ...

    def state(self) -> dict[str, Any]:
        """Return `asterisk.bench.machine.state` of the target."""
        ...

    def takes(self, row: Row) -> bool:
        """Whether the target is meant for such a row at all."""
        ...

    def lacks(self, row: Row) -> str | None:
        """Return in one line what ``row`` would need there and does not find."""
        ...

    def weigh(self, names: Iterable[str]) -> dict[str, int] | None:
        """Return `asterisk.bench.installed.weigh` of the target."""
        ...


def available_cpus() -> list[int] | None:
    """Return the CPUs this process may run on; None where the system cannot bind to any."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else None


def check_cpus(target: Local | Ssh, there: list[int] | None) -> None:
    """Refuse CPUs that are not ``there``; TargetError."""
    if target.cpus and there is None:
        raise TargetError(f"{target}: this system cannot keep a process on chosen CPUs")
    missing = [str(cpu) for cpu in target.cpus if cpu not in (there or ())]
    if missing:
        have = ", ".join(map(str, there or ()))
        raise TargetError(f"{target}: there is no CPU {', '.join(missing)}; there are: {have}")
