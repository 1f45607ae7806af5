"""What the benchmark itself costs: memory of its worker, time of its loop.

``python -m benchmarks.cost`` measures both beside a bare script with the same engine, artifact
and texts, in several processes each, in turns, and prints the medians. Status 1 if a target is
missed. Memory is exact on a busy machine too; times are not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from asterisk.bench import plan, process
from asterisk.bench.plan import Cell, Row
from asterisk.bench.runner import STEADY_CALLS, Request, Work, prepare
from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import EngineError
from asterisk.common.files import ARTIFACTS, shipped_checkpoint
from asterisk.common.terminal import report

FORMATS = ("onnx", "tflite", "gguf")
MOST_MB = 3.0  # PSS of the worker above a bare script's
MOST_US = 5.0  # a call in the worker's loop above one in a bare loop
BARE = f"""
import sys
import asterisk
encoder = asterisk.load(sys.argv[1])
texts = sys.stdin.read().split("\\0")
for call in range({STEADY_CALLS} + 1):
    encoder.encode(texts[call % len(texts)])
for line in open("/proc/self/smaps_rollup"):
    if line.startswith("Pss:"):
        print(line.split()[1])
"""
NONE = "unavailable"


@dataclass(frozen=True, slots=True)
class Cost:
    """PSS in bytes, one a process, None off Linux; times of a call in ns, one pair a turn.

    ``engine`` are pairs of a call in a bare loop and in the worker's, ``nothing`` the same of a
    function that does nothing, ``reported`` what the worker reports of it.
    """

    name: str
    bare: list[int] | None
    worker: list[int] | None
    engine: list[tuple[float, float]]
    nothing: list[tuple[float, float]]
    reported: list[float]

    @property
    def megabytes(self) -> float | None:
        """PSS of the worker above the bare script's, of the medians."""
        if not self.bare or not self.worker:
            return None
        return (median(self.worker) - median(self.bare)) / 1e6

    @property
    def microseconds(self) -> float:
        """A call in the worker's loop above one in the bare loop, median over the turns."""
        return above(self.nothing) / 1e3

    @property
    def missed(self) -> list[str]:
        """One line for each target that is missed."""
        lines = []
        if self.megabytes is not None and self.megabytes > MOST_MB:
            lines.append(f"{self.name}: {self.megabytes:.2f} MB, more than {MOST_MB:g}")
        if self.microseconds > MOST_US:
            lines.append(f"{self.name}: {self.microseconds:.2f} µs a call, more than {MOST_US:g}")
        return lines


def above(pairs: list[tuple[float, float]]) -> float:
    """Return the median of what the second of each pair has above the first."""
    return median(second - first for first, second in pairs)


def measure(work: Work, name: str, processes: int) -> Cost:
    """Measure one row; CellError if a process gives no answer."""
    row, timeout = work.rows[name], work.request.timeout
    texts = work.prepared["buckets"][str(plan.STEADY)]
    bare: list[int] = []
    worker: list[int] = []
    engine: list[tuple[float, float]] = []
    nothing: list[tuple[float, float]] = []
    reported: list[float] = []
    for _ in range(processes):
        if sys.platform == "linux":
            bare.append(_bare(row, texts, timeout))
        answer = process.ask(
            "asterisk.bench.worker", work.spec(Cell(name, "memory", 1, 0)), timeout
        )
        pss = answer["memory"]["steady"]["pss"]
        if pss is not None:
            worker.append(pss)
        turns = work.spec(Cell(name, "latency", 1, 0))
        times: dict[str, Any] = process.ask("benchmarks.cost_worker", turns, timeout)
        engine += [(first, second) for first, second in times["engine"]]
        nothing += [(first, second) for first, second in times["nothing"]]
        reported += times["reported"]
    return Cost(name, bare or None, worker or None, engine, nothing, reported)


def _bare(row: Row, texts: list[str], timeout: float) -> int:
    command = [sys.executable, "-P", "-c", BARE, row.path]
    given = "\0".join(texts)
    try:
        finished = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=timeout, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        raise process.CellError(f"the bare script: {failure}") from None
    return int(finished.stdout) * 1_024


HEADINGS = (
    *("row", "bare PSS, MB", "worker PSS, MB", "above, MB"),
    *("bare call, µs", "worker's call, µs", "the loop alone, µs", "in a sample, µs"),
)


def table(costs: list[Cost]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    for cost in costs:
        cells = [
            cost.name,
            *(f"{median(each) / 1e6:.2f}" if each else NONE for each in (cost.bare, cost.worker)),
            NONE if cost.megabytes is None else f"{cost.megabytes:.2f}",
            f"{median(first for first, _ in cost.engine) / 1e3:.2f}",
            f"{median(second for _, second in cost.engine) / 1e3:.2f}",
            f"{cost.microseconds:.2f}",
            f"{median(cost.reported) / 1e3:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(prog="python -m benchmarks.cost", description=__doc__)
    it.add_argument("--runtime", default=",".join(FORMATS), help="default: %(default)s")
    it.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    it.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="default: %(default)s")
    it.add_argument("--processes", type=positive, default=5, help="a row (default: %(default)s)")
    return it


def _cost(arguments: argparse.Namespace) -> int:
    names = tuple(arguments.runtime.split(","))
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            runtimes=names,
            peers=(),
            checkpoint=arguments.checkpoint or shipped_checkpoint(),
            artifacts=arguments.artifacts,
            work=Path(folder),
            threads=(1,),
            effort=plan.QUICK,
            seed=0,
            timeout=180.0,
        )
        prepared = prepare(request)
        rows = {row.name: row for row in map(Row.from_dict, prepared["rows"])}
        missing = {name: prepared["failed"].get(name, "") for name in names if name not in rows}
        if missing:
            raise EngineError("; ".join(f"{name}: {why}" for name, why in missing.items()))
        work = Work(Path(folder), rows, prepared, request)
        try:
            costs = [measure(work, name, arguments.processes) for name in names]
        except process.CellError as failure:
            raise EngineError(str(failure)) from None
    print(table(costs), flush=True)
    missed = [line for cost in costs for line in cost.missed]
    for line in missed:
        report(line)
    return 1 if missed else 0


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    return run(parser(), _cost, argv)


if __name__ == "__main__":
    sys.exit(main())
