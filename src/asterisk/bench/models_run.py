"""Every model exported, measured in turns in one run, and evaluated through what was measured.

As in `asterisk.bench.run`, this process imports no engine, and no numpy, before the last
measurement.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, run, spawn
from asterisk.bench.models import METRICS, Comparison, Entry
from asterisk.bench.plan import Row
from asterisk.bench.work import Progress, Request, Work, measure
from asterisk.common.errors import EngineError

TEACHER = "all-MiniLM-L6-v2"


def measure_models(
    request: Request,
    models: Mapping[str, str | Path],
    data: Sequence[Path],
    split: str,
    progress: Progress,
) -> Comparison:
    """Measure ``models``, folders or names by name, in ``request``'s formats, and its peers.

    ``data`` are evaluation sets. What fails is a line of the run; EngineError if nothing is left.
    """
    before = machine.state()
    rows, failed, prepared = _rows(request, models)
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    cells = plan.cells([*rows], (1,), request.effort.processes, request.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), {name: row for name, (_, row) in rows.items()}, prepared, request)
        answers, failures = measure(work, cells, progress)
    entries = []
    for name, (model, row) in rows.items():
        if lines := failures[name]:
            failed[name] = "; ".join(lines)
        found = collect.collect(row, answers[name], len(prepared["mixed"]))
        entries.append(
            Entry(
                model,
                row.title,
                row.recipe,
                row.size,
                0,
                found.memory["steady"]["pss"] if found.memory else None,
                {tokens: latency.p50 for tokens, latency in found.latency.items()},
            )
        )
    after = machine.state()
    packages = {name for _, row in rows.values() for name in row.distributions} | {"asterisk-edge"}
    truth: dict[str, float] = {}
    if data:
        ask = _Quality(data, split, progress, failed)
        truth = ask(TEACHER, {"path": TEACHER})[0]
        for entry, (name, (_, row)) in zip(entries, rows.items(), strict=True):
            opener = {"opener": row.opener, "python": row.python} if row.peer else {}
            entry.quality, entry.dimensions = ask(name, {"path": row.path, **opener})
    return Comparison(
        settings={
            **{"argv": sys.argv[1:], "seed": request.seed, "effort": asdict(request.effort)},
            **{"data": [path.name for path in data], "split": split},
        },
        machine=run.with_versions(machine.describe(packages), [row for _, row in rows.values()]),
        warnings=machine.warnings(before, after),
        teacher=TEACHER,
        truth=truth,
        entries=entries,
        failed=failed,
    )


def _rows(
    request: Request, models: Mapping[str, str | Path]
) -> tuple[dict[str, tuple[str, Row]], dict[str, str], dict[str, Any]]:
    """Return each row with its model by a name, what failed, and the texts to measure with."""
    rows: dict[str, tuple[str, Row]] = {}
    failed: dict[str, str] = {}
    prepared: dict[str, Any] = {}
    for number, (model, folder) in enumerate(models.items()):
        # The peers come once, with the first.
        peers = request.peers if number == 0 else ()
        wanted = replace(request, checkpoint=folder, peers=peers)
        prepared = run.prepare(wanted, without_reference=True)
        for values in prepared["rows"]:
            row = Row.from_dict(values)
            name = row.name if row.peer else f"{model}-{row.name}"
            title = row.title if row.model else f"{model}, {row.title}" if row.peer else model
            rows[name] = title, replace(row, name=name)
        failed |= {f"{model} {name}": line for name, line in prepared["failed"].items()}
    return rows, failed, prepared


class _Quality:
    """Asks a process of its own how good something is."""

    def __init__(
        self, data: Sequence[Path], split: str, progress: Progress, failed: dict[str, str]
    ) -> None:
        self.spec = {"data": [*map(str, data)], "split": split, "metrics": METRICS}
        self.progress, self.failed = progress, failed

    def __call__(self, name: str, what: Mapping[str, str]) -> tuple[dict[str, float], int]:
        self.progress(f"{name}: evaluating")
        try:
            python = what.get("python") or sys.executable
            spec = self.spec | {**what}
            answer = spawn.ask("asterisk.bench.quality", spec, None, python=(python,))
        except spawn.CellError as failure:
            known = [self.failed[name]] if name in self.failed else []
            self.failed[name] = "; ".join([*known, f"evaluation: {failure}"])
            return {}, 0
        return answer["quality"], answer["dimensions"]
