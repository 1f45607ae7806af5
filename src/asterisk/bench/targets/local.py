"""This machine as a target."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from asterisk.bench import installed, machine, spawn
from asterisk.bench.plan import Row
from asterisk.bench.targets.parse import Local
from asterisk.bench.targets.session import available_cpus, check_cpus


class LocalSession:
    """This machine."""

    timed = True

    def __init__(self, target: Local) -> None:
        check_cpus(target, available_cpus())
        self.extra = {"cpus": list(target.cpus)} if target.cpus else {}

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` in a process of its own, on the target's CPUs.

        Under the interpreter that ``spec`` names as ``python``, this one if it names none.
        """
        python = spec.get("python") or sys.executable
        return spawn.ask(module, {**spec, **self.extra}, timeout, python=(python,))

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Describe this machine."""
        return machine.describe(packages)

    def state(self) -> dict[str, Any]:
        """Return its state."""
        return machine.state()

    def takes(self, row: Row) -> bool:  # noqa: ARG002
        """Take everything."""
        return True

    def lacks(self, row: Row) -> None:
        """Lack nothing that preparing the row would not have told."""

    def weigh(self, names: Iterable[str]) -> dict[str, int] | None:
        """Weigh what is installed here."""
        return installed.weigh(names)


HERE = LocalSession(Local())
