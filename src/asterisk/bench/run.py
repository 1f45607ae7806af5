"""One run from beginning to end: prepare, a worker a cell, a report.

This process imports no engine and, while anything is measured, not even numpy: whatever it mapped
would be shared with the workers and count half in their PSS.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, spawn
from asterisk.bench.plan import REFERENCE, Cell, Effort, Row
from asterisk.bench.results import Report, RowResult
from asterisk.errors import AsteriskError, EngineError

STEADY_CALLS = 200  # calls before the memory that is reported
NEEDED = {
    "memory": {"memory", "shared"},
    "latency": {"phases", "latency", "parts", "passes"},
    "throughput": {"phases", "passes"},
}
Progress = Callable[[str], None]
Answers = dict[str, list[tuple[Cell, Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure and where things are; ``timeout`` in seconds a worker."""

    runtimes: tuple[str, ...]
    peers: tuple[str, ...]
    checkpoint: Path
    artifacts: Path
    work: Path
    threads: tuple[int, ...]
    effort: Effort
    seed: int
    timeout: float


def bench(request: Request, progress: Progress) -> Report:
    """Carry out ``request``; AsteriskError if there is nothing that could be measured.

    Rows and processes that fail are lines of the report, and the others go on.
    """
    before = machine.state()
    prepared = prepare(request)
    every = [Row.from_dict(values) for values in prepared["rows"]]
    rows = [row for row in every if row.name in (*request.runtimes, *request.peers)]
    failed: dict[str, str] = prepared["failed"]
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    effort = request.effort
    cells = plan.cells([row.name for row in rows], request.threads, effort.processes, request.seed)
    # The reference row is needed for its vectors even where nobody asked to see it.
    cells += [Cell(row.name, "memory", 1, 0) for row in every if row not in rows]
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), {row.name: row for row in every}, prepared, request)
        answers, failures = measure(work, cells, progress)
        results = [collect.collect(row, answers[row.name], len(prepared["mixed"])) for row in rows]
        packages = {name for row in rows for name in row.distributions} | {"asterisk-edge"}
        vectors = {name: path for name in work.rows if (path := work.vectors(name)).is_file()}
        collect.judge(rows, results, vectors)
    collect.compare(results)
    for result in results:
        result.failures += failures.pop(result.name)
    failed |= {name: line for name, lines in failures.items() for line in lines}
    after = machine.state()
    return Report(
        checkpoint=prepared["checkpoint"],
        settings=_settings(request),
        machine=machine.describe(packages),
        before=before,
        after=after,
        warnings=machine.warnings(before, after) + _shared(results),
        rows=results,
        failed=failed,
    )


@dataclass(frozen=True, slots=True)
class Work:
    """Everything a cell's spec is made from; ``folder`` is gone after the run."""

    folder: Path
    rows: Mapping[str, Row]
    prepared: Mapping[str, Any]
    request: Request

    def vectors(self, row: str) -> Path:
        """Where the worker leaves its vectors."""
        return self.folder / f"{row}.npy"

    def spec(self, cell: Cell) -> dict[str, Any]:
        """Return what the worker of ``cell`` reads."""
        row, buckets = self.rows[cell.row], self.prepared["buckets"]
        steady = str(plan.STEADY)
        spec = {
            "kind": cell.kind,
            "opener": row.opener,
            "path": row.path,
            "modules": row.modules,
            "threads": cell.threads,
            "first": buckets[steady][0],
        }
        if cell.kind == "memory":
            compared = row.reference or not row.peer
            spec |= {
                "steady": steady,
                "buckets": {steady: buckets[steady]},
                "calls": STEADY_CALLS,
                "long": self.prepared["long"],
                "vectors": str(self.vectors(row.name)) if compared else "",
                "texts": str(self.texts),
                "count": row.compared or None,
            }
            return spec
        spec |= {"effort": asdict(self.request.effort), "mixed": self.prepared["mixed"]}
        if cell.kind == "latency":
            # Another length first in every process, so that none is always measured last.
            names = list(buckets)
            turn = cell.repetition % len(names)
            turned = names[turn:] + names[:turn]
            spec |= {"steady": steady, "buckets": {name: buckets[name] for name in turned}}
        return spec

    @property
    def texts(self) -> Path:
        """The file of all texts that fidelity is measured over, written when first asked for."""
        path = self.folder / "texts.json"
        if not path.exists():
            path.write_text(json.dumps(self.prepared["texts"]), "utf-8")
        return path


def measure(
    work: Work, cells: Sequence[Cell], progress: Progress
) -> tuple[Answers, dict[str, list[str]]]:
    """Start one worker a cell, in order; return its answers and its failures by row."""
    answers: Answers = {name: [] for name in work.rows}
    failures: dict[str, list[str]] = {name: [] for name in work.rows}
    for number, cell in enumerate(cells, 1):
        progress(f"[{number}/{len(cells)}] {cell}")
        try:
            answer = spawn.ask("asterisk.bench.worker", work.spec(cell), work.request.timeout)
            if not NEEDED[cell.kind] <= answer.keys():
                raise spawn.CellError("answered with something other than a measurement")
        except spawn.CellError as failure:
            failures[cell.row].append(f"{cell}: {failure}")
            progress(failures[cell.row][-1])
        else:
            answers[cell.row].append((cell, answer))
    return answers, failures


def prepare(request: Request, *, every_recipe: bool = False) -> dict[str, Any]:
    """Have `asterisk.bench.prepare` export and choose; the reference comes along for its vectors.

    Not with ``every_recipe``: each row is then named after its format and recipe. AsteriskError if
    the checkpoint itself cannot be read.
    """
    names = list(request.runtimes)
    if names and REFERENCE not in names and not every_recipe:
        names.insert(0, REFERENCE)
    wanted = {
        "every_recipe": every_recipe,
        "runtimes": names,
        "peers": request.peers,
        "checkpoint": str(request.checkpoint),
        "artifacts": str(request.artifacts),
        "work": str(request.work),
    }
    try:
        prepared = spawn.ask("asterisk.bench.prepare", wanted, None, quiet=False)
    except spawn.CellError as failure:
        raise EngineError(f"preparing the benchmark: {failure}") from None
    if "refused" in prepared:
        refusal = AsteriskError(prepared["refused"])
        refusal.status = prepared["status"]
        raise refusal
    return prepared


def _settings(request: Request) -> dict[str, Any]:
    return {
        "argv": sys.argv[1:],
        "runtimes": list(request.runtimes),
        "peers": list(request.peers),
        "threads": list(request.threads),
        "buckets": list(plan.BUCKETS),
        "effort": asdict(request.effort),
        "seed": request.seed,
    }


def _shared(results: Sequence[RowResult]) -> list[str]:
    return [
        f"{row.name}: another process maps {', '.join(row.shared)} too, so PSS is understated"
        for row in results
        if row.shared
    ]
