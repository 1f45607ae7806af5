"""The run: what is built once, and every cell in processes of its own, in turns."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterisk.bench import machine
from asterisk.bench.process import CellError, ask
from benchmarks.search.corpus import Corpus

WORKER = "benchmarks.search.worker"
MODES = ("vectors", "words", "hybrid")
PRECISIONS = ("int8", "float32")
SCAN, BRUTE = "scan", "numpy in memory"
TOKENS = 40  # of the summaries whose indexing is timed
HITS = 10
WARM = 10  # queries
PACKAGES = ("numpy", "ai-edge-litert", "onnxruntime", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure; ``corpora`` by name."""

    artifact: Path
    corpora: Mapping[str, Corpus]
    processes: int = 3
    threads: tuple[int, ...] = (1, 2)
    summaries: int = 3_000
    precisions: tuple[str, ...] = PRECISIONS
    seed: int = 0
    timeout: float = 1_800.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table: a corpus, how its vectors are stored and who compares them."""

    corpus: str
    precision: str
    engine: str

    @property
    def name(self) -> str:
        """What it is called where something is told about it."""
        return f"{self.corpus}, {self.precision}, {self.engine}"


def measure(plan: Plan, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Carry out ``plan`` and return what is written as JSON; CellError if nothing can be built."""
    before = machine.state()
    report: dict[str, Any] = {
        "kind": "search",
        "settings": {
            "artifact": plan.artifact.name,
            "processes": plan.processes,
            "hits": HITS,
            "seed": plan.seed,
            "tokens": TOKENS,
        },
        "machine": machine.describe(PACKAGES),
        "corpora": {name: _described(corpus) for name, corpus in plan.corpora.items()},
        "failed": {},
    }
    with tempfile.TemporaryDirectory(prefix="asterisk-bench-search-") as folder:
        work = Path(folder)
        report["indexes"] = {name: _built(plan, name, work, on_progress) for name in plan.corpora}
        report["rates"] = _rates(plan, work, report, on_progress)
        report["cells"] = _cells(plan, work, report["failed"], on_progress)
    report["state"] = {"before": before, "after": machine.state()}
    report["warnings"] = machine.warnings(before, report["state"]["after"])
    return report


def _described(corpus: Corpus) -> dict[str, Any]:
    characters = sum(map(len, corpus.texts)) / len(corpus.texts)
    return {
        "from": corpus.source,
        "texts": len(corpus.texts),
        "queries": len(corpus.queries),
        "characters_mean": characters,
    }


def _built(plan: Plan, name: str, work: Path, on_progress: Callable[[str], None]) -> dict[str, Any]:
    on_progress(f"indexing {len(plan.corpora[name].texts):,} {name}")
    texts = work / f"{name}.json"
    texts.write_text(json.dumps(plan.corpora[name].texts), "utf-8")
    made = _ask(
        plan,
        kind="build",
        texts=str(texts),
        threads=max(plan.threads),
        databases={one: str(_database(work, name, one)) for one in plan.precisions},
        vectors=str(_vectors(work, name)),
    )
    return dict(made["databases"])


def _rates(
    plan: Plan, work: Path, report: dict[str, Any], on_progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Time indexing summaries of a length, by threads, each process with a new file."""
    name = next(iter(plan.corpora))
    chosen = work / "chosen.json"
    some = _ask(
        plan,
        kind="choose",
        texts=str(work / f"{name}.json"),
        tokens=TOKENS,
        count=plan.summaries,
        out=str(chosen),
    )
    if not some["count"]:
        report["failed"]["indexing"] = f"no text of {name} has about {TOKENS} tokens"
        return []
    answers_by_threads: dict[int, list[dict[str, Any]]] = {threads: [] for threads in plan.threads}
    for turn in range(plan.processes):
        for threads in plan.threads:
            on_progress(f"indexing {some['count']:,} texts of {TOKENS} tokens, {threads} threads")
            answers_by_threads[threads].append(
                _ask(
                    plan,
                    kind="rate",
                    texts=str(chosen),
                    threads=threads,
                    database=str(work / f"rate-{threads}-{turn}.db"),
                )
            )
    return [
        {
            "threads": threads,
            "texts": some["count"],
            "tokens_mean": some["tokens"],
            "indexed_per_s": [one["indexed_per_s"] for one in answers],
            "embedded_per_s": [one["embedded_per_s"] for one in answers],
            "cpu_ns": [one["cpu_ns"] for one in answers],
            "peak": max(one["memory"]["peak"] or 0 for one in answers),
        }
        for threads, answers in answers_by_threads.items()
    ]


def _cells(
    plan: Plan, work: Path, failed: dict[str, str], on_progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Ask every cell once a turn, in another order each time."""
    cells = list(_every(plan))
    answers: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in cells}
    draw = random.Random(plan.seed)
    for turn in range(plan.processes):
        draw.shuffle(cells)
        for cell in cells:
            if cell.name in failed:
                continue
            on_progress(f"turn {turn + 1} of {plan.processes}: {cell.name}")
            try:
                answers[cell].append(_queried(plan, cell, work))
            except CellError as failure:
                failed[cell.name] = str(failure)
    return [
        {
            "corpus": cell.corpus,
            "precision": cell.precision,
            "engine": cell.engine,
            "processes": answers[cell],
        }
        for cell in _every(plan)
        if answers[cell]
    ]


def _every(plan: Plan) -> Iterator[Cell]:
    for corpus in plan.corpora:
        for precision in plan.precisions:
            yield Cell(corpus, precision, SCAN)
        yield Cell(corpus, "float32", BRUTE)


def _queried(plan: Plan, cell: Cell, work: Path) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "queries": plan.corpora[cell.corpus].queries,
        "k": HITS,
        "warm": WARM,
        "at": time.monotonic_ns(),
    }
    if cell.engine == BRUTE:
        return _ask(plan, kind="brute", vectors=str(_vectors(work, cell.corpus)), **spec)
    return _ask(
        plan,
        kind="query",
        database=str(_database(work, cell.corpus, cell.precision)),
        modes=MODES,
        **spec,
    )


def _ask(plan: Plan, **spec: Any) -> dict[str, Any]:
    spec["artifact"] = str(plan.artifact.absolute())
    return ask(WORKER, spec, plan.timeout)


def _database(work: Path, corpus: str, precision: str) -> Path:
    return work / f"{corpus}-{precision}.db"


def _vectors(work: Path, corpus: str) -> Path:
    return work / f"{corpus}.npy"
