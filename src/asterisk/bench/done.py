"""What has been measured so far, on every target."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asterisk.bench import collect
from asterisk.bench.plan import REFERENCE, Row
from asterisk.bench.results import RowResult

EMULATED_EVERY = 16  # one text in so many is embedded under an emulator, which takes its time
HOME = "home"  # where the reference is embedded: the first local target


@dataclass(slots=True)
class Done:
    """Rows with their results, in order, and one line for each thing that failed.

    ``targets`` is that of `asterisk.bench.results.Report`; ``files`` are the vectors by target, or
    `HOME`, and row, in a folder that is gone after the run; ``left_out`` what cannot be had here
    and was not insisted on.
    """

    rows: list[Row] = field(default_factory=list)
    results: list[RowResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Path]] = field(default_factory=dict)

    def add(self, row: Row, result: RowResult) -> None:
        """Take the result of ``row`` on one target."""
        self.rows.append(row)
        self.results.append(result)

    def add_failures(self, failures: Mapping[str, Sequence[str]]) -> None:
        """Take the failures of rows that have no result to carry them."""
        for name, lines in failures.items():
            for line in lines:
                told = self.failed.get(name)
                self.failed[name] = f"{told}; {line}" if told else line

    def void(self, target: str, reasons: Sequence[str]) -> None:
        """Mark the times of every row on ``target`` as void."""
        for result in self.results:
            if result.target == target:
                result.invalid += reasons

    def leave_out(self, target: str, reason: str) -> None:
        """Go without ``target``; where CI promises that it was measured, that is a failure."""
        if os.environ.get("CI") == "true":
            self.failed[target] = reason.removeprefix(f"{target}: ")
        else:
            self.left_out.append(reason)

    def judge(self) -> None:
        """Fill in every row's fidelity and what it is faster than; imports numpy.

        A row on another target is compared with the FP32 vectors of this machine.
        """
        home = self.files.get(HOME, {})
        for target in dict.fromkeys(result.target for result in self.results):
            pairs = zip(self.rows, self.results, strict=True)
            mine = [(row, result) for row, result in pairs if result.target == target]
            results = [result for _, result in mine]
            if target in self.files:
                vectors = self.files[target]
                rows = [_anchored(row, home, vectors.get(row.name)) for row, _ in mine]
            else:
                vectors, rows = home, [row for row, _ in mine]
            collect.judge(rows, results, vectors)
            collect.compare(results)


def _anchored(row: Row, home: Mapping[str, Path], ours: Path | None) -> Row:
    """Give ``row`` the reference of this machine, of the texts that ``ours`` are of."""
    if row.reference or row.model or REFERENCE not in home or ours is None:
        return row
    import numpy as np

    whole = np.load(home[REFERENCE])
    some = whole[::EMULATED_EVERY]
    if len(np.load(ours)) != len(some):
        return replace(row, reference=str(home[REFERENCE]))
    reference = ours.with_suffix(".reference.npy")
    np.save(reference, some)
    return replace(row, reference=str(reference))
