"""Every recipe of every format: exported, measured, evaluated.

As in `asterisk.bench.run`, this process imports no engine, and no numpy, before the last
measurement.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asterisk.bench import collect, machine, plan, run, spawn
from asterisk.bench.pareto import Pareto, Recipe, mark
from asterisk.bench.plan import Row
from asterisk.bench.results import RowResult
from asterisk.bench.work import Progress, Request, Work, measure
from asterisk.common.errors import EngineError

MANIFEST = "artifact.json"


def measure_recipes(
    request: Request, data: Sequence[Path], split: str, progress: Progress
) -> Pareto:
    """Carry out ``request`` for every recipe of its runtimes; ``data`` are evaluation sets.

    A recipe that its gate refuses, or that lacks an extra, is a line of the run. EngineError if
    that leaves none.
    """
    before = machine.state()
    prepared = run.prepare(request, every_recipe=True)
    failed: dict[str, str] = prepared["failed"]
    rows = [Row.from_dict(values) for values in prepared["rows"]]
    if not rows:
        raise EngineError("; ".join(f"{name}: {line}" for name, line in failed.items()))
    cells = plan.cells([row.name for row in rows], (1,), request.effort.processes, request.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), {row.name: row for row in rows}, prepared, request)
        answers, failures = measure(work, cells, progress)
    packages = {name for row in rows for name in row.distributions} | {"asterisk-edge"}
    recipes = []
    for row in rows:
        found = collect.collect(row, answers[row.name], len(prepared["mixed"]))
        recipes.append(_recipe(row, found))
        if lines := failures[row.name]:
            failed[row.name] = "; ".join(lines)
    after = machine.state()
    if data:
        for row, recipe in zip(rows, recipes, strict=True):
            progress(f"{row.name}: evaluating")
            try:
                recipe.quality = _quality(row, data, split)
            except spawn.CellError as failure:
                known = [failed[row.name]] if row.name in failed else []
                failed[row.name] = "; ".join([*known, f"evaluation: {failure}"])
    mark(recipes)
    return Pareto(
        checkpoint=prepared["checkpoint"],
        settings={
            **{"argv": sys.argv[1:], "seed": request.seed, "effort": asdict(request.effort)},
            **{"data": [path.name for path in data], "split": split},
        },
        machine=machine.describe(packages),
        warnings=machine.warnings(before, after),
        recipes=recipes,
        failed=failed,
    )


def _recipe(row: Row, found: RowResult) -> Recipe:
    manifest = json.loads((Path(row.path) / MANIFEST).read_text("utf-8"))
    return Recipe(
        format=manifest["format"],
        title=row.title,
        recipe=row.recipe,
        size=row.size,
        pss=found.memory["steady"]["pss"] if found.memory else None,
        ms={tokens: latency.p50 for tokens, latency in found.latency.items()},
        fidelity=manifest["fidelity"],
    )


def _quality(row: Row, data: Sequence[Path], split: str) -> dict[str, float]:
    spec: Mapping[str, Any] = {"path": row.path, "data": [*map(str, data)], "split": split}
    answer: dict[str, float] = spawn.ask("asterisk.bench.quality", spec, None)["quality"]
    return answer
