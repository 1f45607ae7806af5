"""`asterisk-bench --compare`: its options, what is refused before anything is measured, its end."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asterisk.bench import machine
from asterisk.bench.comparison import compare
from asterisk.bench.comparison_table import name, table
from asterisk.bench.likeness import needs_like_machines, refuse, unlike_machine
from asterisk.bench.limits import Limit, parse
from asterisk.bench.reading import read
from asterisk.bench.results import Report
from asterisk.common.errors import RegressionError, UsageError

TOLD = 3  # of what got worse, in the one line at the end


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run, and what may not be worse than in it."""

    old: Report
    limits: Mapping[str, Limit]
    force: bool

    def check_here(self) -> None:
        """Refuse, before minutes are spent, if this machine is not that of the earlier run."""
        apart = unlike_machine(self.old, machine.describe(()))
        if apart and not self.force and needs_like_machines(self.limits):
            refuse(apart)

    def finish(self, new: Report) -> None:
        """Print the table; RegressionError if something is worse than allowed."""
        found = compare(self.old, new, self.limits, force=self.force)
        print(table(found), end="", flush=True)
        failed = [name(line) for line in found.failed]
        if failed:
            more = f" and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
            raise RegressionError(f"worse than allowed: {', '.join(failed[:TOLD])}{more}")


def add_options(it: argparse.ArgumentParser) -> None:
    """Add the options to the command's."""
    group = it.add_argument_group("comparing")
    group.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="compare with this earlier run; without --with, measure now, 9 processes a cell "
        "unless --processes says otherwise",
    )
    group.add_argument(
        "--with",
        type=Path,
        metavar="NEW.json",
        dest="new",
        help="measure nothing, compare this one with it",
    )
    group.add_argument(
        "--fail-on",
        metavar="LIMITS",
        help="exit with status 9 if something is worse: p50:5%%,pss:3%%,cosine:0.995,overlap:0.95,"
        "size:1%%,instructions:1%%, or some of these (default: tell, never fail)",
    )
    group.add_argument("--force", action="store_true", help="compare unlike machines all the same")


def baseline(arguments: argparse.Namespace) -> Baseline | None:
    """Return what to compare with, if that was asked for.

    UsageError for options that make no sense, InputError for a file that is no report.
    """
    if arguments.compare is None:
        for option, value in (("--with", arguments.new), ("--fail-on", arguments.fail_on)):
            if value is not None:
                raise UsageError(f"{option} needs --compare")
        if arguments.force:
            raise UsageError("--force needs --compare")
        return None
    if arguments.pareto is not None:
        raise UsageError("--compare and --pareto exclude each other")
    limits = {} if arguments.fail_on is None else parse(arguments.fail_on)
    return Baseline(read(arguments.compare), limits, arguments.force)
