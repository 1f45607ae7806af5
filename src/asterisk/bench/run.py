"""One run from beginning to end: prepare, a worker a cell, a report.

This process imports no engine and, while anything is measured, not even numpy: whatever it mapped
would be shared with the workers and count half in their PSS.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, spawn, throttling
from asterisk.bench.done import HOME, Done
from asterisk.bench.plan import REFERENCE, Cell, Row
from asterisk.bench.results import Report, RowResult
from asterisk.bench.targets.opening import opened
from asterisk.bench.targets.parse import LOCAL, Target
from asterisk.bench.targets.session import TargetError, Unavailable
from asterisk.bench.work import Progress, Request, Work, measure
from asterisk.common.errors import AsteriskError, EngineError


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
    with tempfile.TemporaryDirectory() as folder:
        known = {row.name: row for row in every}
        work = Work(Path(folder), known, prepared, request, load=before["load"])
        done = everywhere(work, rows, progress)
        done.judge()
        table, doubts = _interchange(every, done.files.get(HOME, {}), prepared["checkpoint"])
    results = done.results
    limit = request.max_memory
    unheld = collect.held(rows, results, limit) if limit else []
    failed |= done.failed
    packages = {name for row in rows for name in row.distributions} | {"asterisk-edge"}
    after = machine.state()
    # A target here warns of the same, and of what was between the rounds.
    measured_here = any(target.kind == "local" for target in request.targets)
    own = [] if measured_here else machine.warnings(before, after)
    return Report(
        checkpoint=prepared["checkpoint"],
        settings=_settings(request) | {"interrupted": bool(work.interrupted)},
        machine=with_versions(machine.describe(packages), rows),
        before=before,
        after=after,
        warnings=own + unheld + _shared(results) + doubts + done.left_out,
        rows=results,
        failed=failed,
        targets=done.targets,
        interchange=table,
    )


def everywhere(work: Work, rows: Sequence[Row], progress: Progress) -> Done:
    """Measure ``rows`` on one target after the other; what cannot be had is a line of `Done`."""
    request, done = work.request, Done()
    targets: list[Target] = list(request.targets)
    home = next((target for target in targets if target.kind == "local"), None)
    # The reference row is needed for its vectors even where nobody asked to see it.
    if home is None:
        home = LOCAL
        others = [row for row in work.rows.values() if row.name == REFERENCE]
        here = replace(work, folder=_subfolder(work, HOME))
        done.add_failures(measure(here, _alone(others), progress)[1])
        done.files[HOME] = here.embedded()
    for number, target in enumerate(targets):
        if work.interrupted:
            break
        here = replace(work, folder=_subfolder(work, str(number)), target=str(target))
        try:
            with opened(target, here.folder, request.keep) as session:
                known = work.rows if target is home else {row.name: row for row in rows}
                here = replace(here, session=session, rows=known)
                _on(here, target, rows, done, progress)
        except Unavailable as reason:
            done.leave_out(str(target), str(reason))
            progress(str(reason))
        except (TargetError, spawn.CellError) as failure:
            done.failed[str(target)] = str(failure).removeprefix(f"{target}: ")
            progress(f"{target}: {done.failed[str(target)]}")
        except KeyboardInterrupt:
            work.interrupted.append(str(target))
        done.files[HOME if target is home else str(target)] = here.embedded()
    if work.interrupted:
        done.failed["interrupted"] = "the rest was not measured"
    return done


def _on(
    work: Work,
    target: Target,
    rows: Sequence[Row],
    done: Done,
    progress: Progress,
) -> None:
    """Measure ``rows`` on an open target, and what else ``work`` has for its vectors alone."""
    work = replace(work, states=[])
    request, session = work.request, work.session
    extra = [row for row in work.rows.values() if row not in rows]
    before = session.state()
    if target.kind == "local":  # what exports and peers loaded it with is over by now
        before = {**before, "load": work.load}
    lacking = {row.name: session.lacks(row) for row in rows if session.takes(row)}
    done.failed |= {f"{name} on {target}": line for name, line in lacking.items() if line}
    there = [row for row in rows if row.name in lacking and not lacking[row.name]]
    names = [row.name for row in there]
    if session.timed:
        threads, processes = target.threads or request.threads, request.effort.processes
        weighings = request.effort.weighings
        cells = plan.cells(names, threads, processes, request.seed, weighings) + _alone(extra)
    else:
        cells = [Cell(name, "vectors", 1, 0) for name in names]
    answers, failures = measure(work, cells, progress)
    for row in there:
        timed = answers[row.name] if session.timed else []
        result = collect.collect(row, timed, len(work.prepared["mixed"]))
        result.target = str(target)
        for _, answer in answers[row.name]:
            result.instructions |= answer.get("instructions", {})
        result.installed = row.installed if row.python else session.weigh(row.distributions)
        result.failures += failures.pop(row.name)
        done.add(row, result)
    done.add_failures(failures)
    packages = {name for row in there for name in row.distributions} | {"asterisk-edge"}
    after = session.state() if not work.interrupted else before
    if session.timed:
        done.void(str(target), throttling.invalid([before, *work.states, after]))
    done.targets[str(target)] = {
        "kind": target.kind,
        "machine": with_versions(session.describe(packages), there) if not work.interrupted else {},
        "before": before,
        "between": work.states,
        "after": after,
        "warnings": machine.warnings(before, after, work.states) if session.timed else [],
    }


def with_versions(described: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return a machine's description with the packages of the peers' own environment."""
    theirs = {f"{k} (peers)": v for row in rows if row.python for k, v in row.versions.items()}
    if not theirs:
        return described
    ours = {name for row in rows if not row.python for name in row.distributions}
    packages = {k: v for k, v in described["packages"].items() if k in ours or k == "asterisk-edge"}
    return {**described, "packages": packages | theirs}


def _alone(rows: Sequence[Row]) -> list[Cell]:
    return [Cell(row.name, "memory", 1, 0) for row in rows]


def _subfolder(work: Work, name: str) -> Path:
    folder = work.folder / name
    folder.mkdir()
    return folder


def prepare(
    request: Request, *, every_recipe: bool = False, without_reference: bool = False
) -> dict[str, Any]:
    """Have `asterisk.bench.prepare` export and choose; the reference comes along for its vectors.

    Not ``without_reference``, nor with ``every_recipe``: each row is then named after its format
    and recipe. AsteriskError if the checkpoint itself cannot be read.
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
        "buckets": sorted({*request.buckets, plan.STEADY}),
        "recipes": dict(request.recipes),
        "peer_python": request.peer_python,
        "timeout": request.timeout,
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
        "buckets": sorted({*request.buckets, plan.STEADY}),
        "max_memory": request.max_memory,
        "targets": list(map(str, request.targets)),
        "effort": asdict(request.effort),
        "seed": request.seed,
    }


def _interchange(
    rows: Sequence[Row], files: Mapping[str, Path], checkpoint: Mapping[str, str]
) -> tuple[dict[str, dict[str, dict[str, float]]], list[str]]:
    """Return the interchange table and what in it is not as promised; imports numpy."""
    from asterisk.bench.interchange import measured, not_borne_out

    table = measured(rows, files)
    return table, not_borne_out(rows, table, checkpoint["fingerprint"])


def _shared(results: Sequence[RowResult]) -> list[str]:
    return [
        f"{row.name}: another process maps {', '.join(row.shared)} too, so PSS is understated"
        for row in results
        if row.shared
    ]
