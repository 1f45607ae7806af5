"""From the answers of the workers to the rows of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from asterisk.bench.installed import weigh
from asterisk.bench.plan import REFERENCE, Cell, Row
from asterisk.bench.results import RowResult
from asterisk.bench.summary import NS_PER_MS, summarise

Answer = Mapping[str, Any]
PHASES = ("import", "load", "first")


def collect(row: Row, answers: Sequence[tuple[Cell, Answer]], mixed: int) -> RowResult:
    """Summarise what the processes of ``row`` answered; ``mixed`` is the length of the list."""
    result = RowResult(
        row.name, row.title, row.recipe, row.peer, row.size, weigh(row.distributions)
    )
    timed = [answer for cell, answer in answers if cell.kind == "latency"]
    for tokens in sorted(timed[0]["latency"], key=int) if timed else ():
        result.samples_ns[tokens] = [answer["latency"][tokens] for answer in timed]
        result.latency[tokens] = summarise(result.samples_ns[tokens])
    for part in timed[0]["parts"] if timed else ():
        medians = [median(answer["parts"][part]) for answer in timed]
        result.parts_ms[part] = median(medians) / NS_PER_MS
    for cell, answer in answers:
        if cell.kind == "memory":
            result.memory, result.shared = answer["memory"], answer["shared"]
        else:
            result.passes_ns.setdefault(str(cell.threads), []).append(answer["passes"])
    for threads, passes in sorted(result.passes_ns.items()):
        rates = [mixed * len(process) / sum(process) * 1e9 for process in passes]
        result.throughput[threads] = median(rates)
    starts = [answer["phases"] for cell, answer in answers if cell.kind != "memory"]
    if starts:
        result.start_ms = {
            phase: median(start[phase] for start in starts) / NS_PER_MS for phase in PHASES
        }
    return result


def compare(results: Sequence[RowResult]) -> None:
    """Fill in how many times faster each row is than each peer, by tokens."""
    for row in results:
        for peer in results:
            common = row.latency.keys() & peer.latency.keys()
            if peer.peer and peer is not row and common:
                row.faster[peer.name] = {
                    tokens: peer.latency[tokens].p50 / row.latency[tokens].p50
                    for tokens in row.latency
                    if tokens in common
                }


def judge(rows: Sequence[Row], results: Sequence[RowResult], vectors: Mapping[str, Path]) -> None:
    """Fill in each row's fidelity from the ``vectors`` its worker left, and what it falls below.

    Imports numpy, hence only after the last measurement.
    """
    import numpy as np

    from asterisk.evaluation.fidelity import compare as agreement

    by_name = {result.name: result for result in results}
    for row in rows:
        result, ours = by_name.get(row.name), vectors.get(row.name)
        if row.reference:
            theirs: Path | None = Path(row.reference)
        else:
            theirs = None if row.peer else vectors.get(REFERENCE)
        if result is None or ours is None or theirs is None:
            continue
        a, b = np.load(ours), np.load(theirs)
        if a.shape != b.shape or not np.isfinite(a).all():
            result.failures.append(f"{row.name}: vectors {a.shape} that are no embeddings")
            continue
        result.fidelity = asdict(agreement(a, b))
        result.below = [
            f"{name} {result.fidelity[name]:.4f} is below {least:g}"
            for name, least in (row.thresholds or {}).items()
            if result.fidelity[name] < least
        ]
