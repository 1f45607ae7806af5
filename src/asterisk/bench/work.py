"""What a run was asked and has at hand, and the workers that it starts.

The process that does this imports no engine and no numpy; see `asterisk.bench.run`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from asterisk.bench import plan, spawn
from asterisk.bench.done import EMULATED_EVERY
from asterisk.bench.plan import Cell, Effort, Row
from asterisk.bench.targets.local import HERE
from asterisk.bench.targets.parse import LOCAL, Target
from asterisk.bench.targets.session import Session

STEADY_CALLS = 200  # calls before the memory that is reported
BATCH = 32  # texts of the longest bucket in one call, before memory is read a last time
VARIED = 64  # texts of mixed lengths, embedded alone and together
NEEDED = {
    "memory": {"memory", "shared"},
    "latency": {"phases", "latency", "parts", "passes"},
    "throughput": {"phases", "passes"},
    "vectors": {"marked"},
}
Progress = Callable[[str], None]
Answers = dict[str, list[tuple[Cell, Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure and where things are; ``timeout`` in seconds a worker.

    ``max_memory`` in bytes is what every row of a format is opened with; ``recipes`` names, by
    format, another recipe than the default one. ``checkpoint`` is a folder or a model's name;
    ``peer_python`` the interpreter of peers with an environment of their own, empty for this one.
    """

    runtimes: tuple[str, ...]
    peers: tuple[str, ...]
    checkpoint: str | Path
    artifacts: Path
    work: Path
    threads: tuple[int, ...]
    effort: Effort
    seed: int
    timeout: float
    targets: tuple[Target, ...] = (LOCAL,)
    buckets: tuple[int, ...] = plan.BUCKETS
    keep: bool = False
    max_memory: int | None = None
    recipes: Mapping[str, str] = field(default_factory=dict)
    peer_python: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """Everything a cell's spec is made from; ``folder`` is gone after the run.

    ``load`` was the machine's before anything was prepared, None if it does not say;
    ``interrupted`` gets a line once the user has had enough, ``states`` what the target was like
    between rounds.
    """

    folder: Path
    rows: Mapping[str, Row]
    prepared: Mapping[str, Any]
    request: Request
    target: str = "local"
    session: Session = HERE
    load: float | None = None
    interrupted: list[str] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    def vectors(self, row: str) -> Path:
        """Where the worker leaves its vectors."""
        return self.folder / f"{row}.npy"

    def embedded(self) -> dict[str, Path]:
        """Return the vectors that are there, by row."""
        return {name: path for name in self.rows if (path := self.vectors(name)).is_file()}

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
            "python": row.python,
        }
        if self.request.max_memory and plan.limited(row):
            spec["max_memory"] = self.request.max_memory
        if cell.kind == "vectors":
            counted = {name: buckets[name][:1] for name in buckets}
            some = self.folder / "some.json"
            some.write_text(json.dumps(self.prepared["texts"][::EMULATED_EVERY]), "utf-8")
            texts = {"vectors": str(self.vectors(row.name)), "texts": str(some)}
            return spec | texts | {"count": None, "counted": counted}
        if cell.kind == "memory":
            compared = row.reference or not row.model
            spec |= {
                "steady": steady,
                "buckets": {steady: buckets[steady]},
                "calls": STEADY_CALLS,
                "long": self.prepared["long"],
                "batch": list(islice(cycle(buckets[str(max(map(int, buckets)))]), BATCH)),
                "varied": self.prepared["mixed"][:VARIED],
                "vectors": str(self.vectors(row.name)) if compared and not cell.repetition else "",
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
            if number > 1 and cell.round != cells[number - 2].round:
                _look(work)
            spec = work.spec(cell)
            answer = work.session.ask("asterisk.bench.worker", spec, work.request.timeout)
            if not NEEDED[cell.kind] <= answer.keys():
                raise spawn.CellError("answered with something other than a measurement")
        except spawn.CellError as failure:
            where = "" if work.target == "local" else f" on {work.target}"
            failures[cell.row].append(f"{cell}{where}: {failure}")
            progress(failures[cell.row][-1])
        except KeyboardInterrupt:
            work.interrupted.append(str(cell))
            break
        else:
            answers[cell.row].append((cell, answer))
    return answers, failures


def _look(work: Work) -> None:
    """Note the state of a target whose times count; a target that does not tell loses nothing."""
    if work.session.timed:
        with contextlib.suppress(spawn.CellError):
            work.states.append(work.session.state())
