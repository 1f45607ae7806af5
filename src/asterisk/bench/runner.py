"""One run from beginning to end: prepare, a worker a cell on each target, a report.

This process imports no engine and, while anything is measured, not even numpy: whatever it mapped
would be shared with the workers and count half in their PSS.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, process
from asterisk.bench.collect import EMULATED_EVERY, HOME, RunState
from asterisk.bench.plan import REFERENCE, Cell, Effort, Row
from asterisk.bench.results import Report
from asterisk.bench.targets import HERE, LOCAL, Session, Target, TargetError, Unavailable, opened
from asterisk.common.errors import AsteriskError, EngineError

STEADY_CALLS = 200  # calls before the memory that is reported
BATCH = 32  # texts of the longest bucket in one call, before memory is read a last time
VARIED = 64  # texts of mixed lengths, embedded alone and together
NEEDED = {
    "memory": {"memory", "shared"},
    "latency": {"phases", "latency", "parts", "passes"},
    "throughput": {"phases", "passes"},
    "vectors": {"marked"},
}
PACKAGE = "asterisk-edge"
Progress = Callable[[str], None]
Answers = dict[str, list[tuple[Cell, Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure and where things are."""

    runtimes: tuple[str, ...]
    peers: tuple[str, ...]
    checkpoint: str | Path
    artifacts: Path
    work: Path
    threads: tuple[int, ...]
    effort: Effort
    seed: int
    timeout: float  # seconds a worker
    targets: tuple[Target, ...] = (LOCAL,)
    buckets: tuple[int, ...] = plan.BUCKETS
    keep: bool = False
    max_memory: int | None = None  # bytes that every row of a format is opened with
    recipes: Mapping[str, str] = field(default_factory=dict)  # by format, not the default one
    peer_python: str = ""  # interpreter of peers with an environment of their own

    @property
    def all_buckets(self) -> list[int]:
        """The buckets and the one that memory is measured with."""
        return sorted({*self.buckets, plan.STEADY})


@dataclass(frozen=True, slots=True)
class Work:
    """Everything a cell's spec is made from; ``folder`` is gone after the run."""

    folder: Path
    rows: Mapping[str, Row]
    prepared: Mapping[str, Any]
    request: Request
    target: str = "local"
    session: Session = HERE
    load: float | None = None  # the machine's before anything was prepared
    interrupted: list[str] = field(default_factory=list)  # a line once the user has had enough
    states: list[dict[str, Any]] = field(default_factory=list)  # of the target between rounds

    def in_folder(self, name: str, **changed: Any) -> Work:
        """Return the same in a new folder ``name`` of its own."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder, **changed)

    def vectors(self, row: str) -> Path:
        """Where the worker leaves its vectors."""
        return self.folder / f"{row}.npy"

    def embedded(self) -> dict[str, Path]:
        """Return the vectors that exist, by row."""
        return {name: path for name in self.rows if (path := self.vectors(name)).is_file()}

    def spec(self, cell: Cell) -> dict[str, Any]:
        """Return what the worker of ``cell`` reads."""
        row, prepared, steady = self.rows[cell.row], self.prepared, str(plan.STEADY)
        buckets = prepared["buckets"]
        spec = {
            "kind": cell.kind,
            "opener": row.opener,
            "path": row.path,
            "modules": row.modules,
            "threads": cell.threads,
            "first": buckets[steady][0],
            "python": row.python,
        }
        if self.request.max_memory and row.limited:
            spec["max_memory"] = self.request.max_memory
        if cell.kind == "vectors":
            return spec | {
                "vectors": str(self.vectors(row.name)),
                "texts": self._written("some.json", prepared["texts"][::EMULATED_EVERY]),
                "count": None,
                "counted": {name: texts[:1] for name, texts in buckets.items()},
            }
        if cell.kind == "memory":
            compared = row.reference or not row.model
            longest = buckets[str(max(map(int, buckets)))]
            return spec | {
                "steady": steady,
                "buckets": {steady: buckets[steady]},
                "calls": STEADY_CALLS,
                "long": prepared["long"],
                "batch": list(islice(cycle(longest), BATCH)),
                "varied": prepared["mixed"][:VARIED],
                "vectors": str(self.vectors(row.name)) if compared and not cell.repetition else "",
                "texts": self._written("texts.json", prepared["texts"]),
                "count": row.compared or None,
            }
        spec |= {"effort": asdict(self.request.effort), "mixed": prepared["mixed"]}
        if cell.kind == "latency":
            # Another length first in every process, so that none is always measured last.
            names = list(buckets)
            turn = cell.repetition % len(names)
            turned = names[turn:] + names[:turn]
            spec |= {"steady": steady, "buckets": {name: buckets[name] for name in turned}}
        return spec

    def _written(self, name: str, texts: Sequence[str]) -> str:
        path = self.folder / name
        if not path.exists():
            path.write_text(json.dumps(texts), "utf-8")
        return str(path)


def measure(
    work: Work, cells: Sequence[Cell], progress: Progress
) -> tuple[Answers, dict[str, list[str]]]:
    """Start one worker a cell, in order; return its answers and its failures by row."""
    answers: Answers = {name: [] for name in work.rows}
    failures: dict[str, list[str]] = {name: [] for name in work.rows}
    for number, cell in enumerate(cells, 1):
        progress(f"[{number}/{len(cells)}] {cell}")
        try:
            is_new_round = number > 1 and cell.round != cells[number - 2].round
            if is_new_round and work.session.timed:
                with contextlib.suppress(process.CellError):  # a missing state costs nothing
                    work.states.append(work.session.state())
            spec = work.spec(cell)
            answer = work.session.ask("asterisk.bench.worker", spec, work.request.timeout)
            if not NEEDED[cell.kind] <= answer.keys():
                raise process.CellError("answered with something other than a measurement")
        except process.CellError as failure:
            where = "" if work.target == "local" else f" on {work.target}"
            failures[cell.row].append(f"{cell}{where}: {failure}")
            progress(failures[cell.row][-1])
        except KeyboardInterrupt:
            work.interrupted.append(str(cell))
            break
        else:
            answers[cell.row].append((cell, answer))
    return answers, failures


def bench(request: Request, progress: Progress) -> Report:
    """Carry out ``request``, whatever fails in it; AsteriskError if nothing can be measured."""
    before = machine.state()
    prepared = prepare(request)
    every = [Row.from_dict(values) for values in prepared["rows"]]
    rows = [row for row in every if row.name in (*request.runtimes, *request.peers)]
    failed: dict[str, str] = prepared["failed"]
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    with tempfile.TemporaryDirectory() as folder:
        by_name = {row.name: row for row in every}
        work = Work(Path(folder), by_name, prepared, request, load=before["load"])
        state = measure_targets(work, rows, progress)
        state.judge()
        table = collect.measured_interchange(every, state.files.get(HOME, {}))
    limit, after = request.max_memory, machine.state()
    # A target here warns of the same, and of what was between the rounds.
    measured_here = any(target.kind == "local" for target in request.targets)
    warnings = [] if measured_here else machine.warnings(before, after)
    warnings += collect.memory_warnings(rows, state.results, limit) if limit else []
    warnings += [
        f"{row.name}: another process maps {', '.join(row.shared)} too, so PSS is understated"
        for row in state.results
        if row.shared
    ]
    warnings += collect.broken_promises(every, table, prepared["checkpoint"]["fingerprint"])
    settings = {
        "argv": sys.argv[1:],
        "runtimes": list(request.runtimes),
        "peers": list(request.peers),
        "threads": list(request.threads),
        "buckets": request.all_buckets,
        "max_memory": limit,
        "targets": list(map(str, request.targets)),
        "effort": asdict(request.effort),
        "seed": request.seed,
        "interrupted": bool(work.interrupted),
    }
    return Report(
        prepared["checkpoint"],
        settings,
        with_versions(machine.describe(packages_of(rows)), rows),
        before,
        after,
        warnings + state.left_out,
        state.results,
        failed | state.failed,
        targets=state.targets,
        interchange=table,
    )


def measure_targets(work: Work, rows: Sequence[Row], progress: Progress) -> RunState:
    """Measure ``rows`` on one target after the other; what cannot be had is a line of the state."""
    request, state = work.request, RunState()
    home = next((target for target in request.targets if target.kind == "local"), None)
    # The reference row is needed for its vectors even where nobody asked to see it.
    if home is None:
        home = LOCAL
        reference = [row for row in work.rows.values() if row.name == REFERENCE]
        here = work.in_folder(HOME)
        cells = [Cell(row.name, "memory", 1, 0) for row in reference]
        state.add_failures(measure(here, cells, progress)[1])
        state.files[HOME] = here.embedded()
    for number, target in enumerate(request.targets):
        if work.interrupted:
            break
        here = work.in_folder(str(number), target=str(target))
        try:
            with opened(target, here.folder, request.keep) as session:
                wanted = work.rows if target is home else {row.name: row for row in rows}
                here = replace(here, session=session, rows=wanted)
                _on_target(here, target, rows, state, progress)
        except Unavailable as reason:
            if os.environ.get("CI") == "true":  # which promises that it was measured
                state.failed[str(target)] = str(reason).removeprefix(f"{target}: ")
            else:
                state.left_out.append(str(reason))
            progress(str(reason))
        except (TargetError, process.CellError) as failure:
            state.failed[str(target)] = str(failure).removeprefix(f"{target}: ")
            progress(f"{target}: {state.failed[str(target)]}")
        except KeyboardInterrupt:
            work.interrupted.append(str(target))
        state.files[HOME if target is home else str(target)] = here.embedded()
    if work.interrupted:
        state.failed["interrupted"] = "the rest was not measured"
    return state


def _on_target(
    work: Work, target: Target, rows: Sequence[Row], state: RunState, progress: Progress
) -> None:
    """Measure ``rows`` on an open target, and what else ``work`` has for its vectors alone."""
    work = replace(work, states=[])
    request, session = work.request, work.session
    extra = [row for row in work.rows.values() if row not in rows]
    before = session.state()
    if target.kind == "local":  # what exports and peers loaded it with is over by now
        before = {**before, "load": work.load}
    lacking = {row.name: session.missing_package(row) for row in rows if session.accepts(row)}
    state.failed |= {f"{name} on {target}": line for name, line in lacking.items() if line}
    rows = [row for row in rows if row.name in lacking and not lacking[row.name]]
    names = [row.name for row in rows]
    if session.timed:
        threads, effort = target.threads or request.threads, request.effort
        cells = plan.cells(names, threads, effort.processes, request.seed, effort.weighings)
        cells += [Cell(row.name, "memory", 1, 0) for row in extra]
    else:
        cells = [Cell(name, "vectors", 1, 0) for name in names]
    answers, failures = measure(work, cells, progress)
    results = []
    for row in rows:
        timed = answers[row.name] if session.timed else []
        result = collect.collect(row, timed, len(work.prepared["mixed"]))
        result.target = str(target)
        for _, answer in answers[row.name]:
            result.instructions |= answer.get("instructions", {})
        result.installed = row.installed if row.python else session.weigh(row.distributions)
        result.failures += failures.pop(row.name)
        results.append(result)
    state.rows += rows
    state.results += results
    state.add_failures(failures)
    after, described = before, {}
    if not work.interrupted:
        after = session.state()
        described = with_versions(session.describe(packages_of(rows)), rows)
    if session.timed:
        void = machine.void_reasons([before, *work.states, after])
        for result in results:
            result.invalid += void
    state.targets[str(target)] = {
        "kind": target.kind,
        "machine": described,
        "before": before,
        "between": work.states,
        "after": after,
        "warnings": machine.warnings(before, after, work.states) if session.timed else [],
    }


def packages_of(rows: Sequence[Row]) -> set[str]:
    """Return the packages whose versions a report of ``rows`` names."""
    return {name for row in rows for name in row.distributions} | {PACKAGE}


def with_versions(described: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return a machine's description with the packages of the peers' own environment."""
    theirs = {f"{k} (peers)": v for row in rows if row.python for k, v in row.versions.items()}
    if not theirs:
        return described
    ours = packages_of([row for row in rows if not row.python])
    packages = {k: v for k, v in described["packages"].items() if k in ours}
    return {**described, "packages": packages | theirs}


def prepare(
    request: Request, *, every_recipe: bool = False, without_reference: bool = False
) -> dict[str, Any]:
    """Have `asterisk.bench.prepare` export what is missing and choose the texts.

    With ``every_recipe`` each row is named after its format and recipe. AsteriskError if the
    checkpoint itself cannot be read.
    """
    names = list(request.runtimes)
    if REFERENCE not in names and not (every_recipe or without_reference):
        names.insert(0, REFERENCE)
    wanted = {
        "every_recipe": every_recipe,
        "runtimes": names,
        "peers": request.peers,
        "checkpoint": str(request.checkpoint),
        "artifacts": str(request.artifacts),
        "work": str(request.work),
        "buckets": request.all_buckets,
        "recipes": dict(request.recipes),
        "peer_python": request.peer_python,
        "timeout": request.timeout,
    }
    try:
        prepared = process.ask("asterisk.bench.prepare", wanted, None, quiet=False)
    except process.CellError as failure:
        raise EngineError(f"preparing the benchmark: {failure}") from None
    if "refused" in prepared:
        refusal = AsteriskError(prepared["refused"])
        refusal.status = prepared["status"]
        raise refusal
    return prepared
