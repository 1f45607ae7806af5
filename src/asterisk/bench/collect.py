"""From the answers of the workers to the rows of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, median_low
from typing import Any

from asterisk.bench.installed import weigh
from asterisk.bench.plan import REFERENCE, Cell, Row, limited
from asterisk.bench.results import RowResult
from asterisk.bench.summary import NS_PER_MS, summarise
from asterisk.runtimes.memory_budget import format_size as told_size

Answer = Mapping[str, Any]
PHASES = ("import", "load", "first")


def collect(row: Row, answers: Sequence[tuple[Cell, Answer]], mixed: int) -> RowResult:
    """Summarise what the processes of ``row`` answered; ``mixed`` is the length of the list."""
    result = RowResult(
        row.name, row.title, row.recipe, row.peer, row.size, weigh(row.distributions)
    )
    result.model = row.model
    # Every runtime of ours encodes each text at its exact length.
    result.padding = None if row.peer else 0.0
    timed = [answer for cell, answer in answers if cell.kind == "latency"]
    for tokens in sorted(timed[0]["latency"], key=int) if timed else ():
        result.samples_ns[tokens] = [answer["latency"][tokens] for answer in timed]
        result.latency[tokens] = summarise(result.samples_ns[tokens])
    for tokens in sorted(timed[0]["parts"], key=int) if timed else ():
        result.parts_ns[tokens] = {
            part: [answer["parts"][tokens][part] for answer in timed]
            for part in timed[0]["parts"][tokens]
        }
        result.parts_ms[tokens] = {
            part: median(map(median, processes)) / NS_PER_MS
            for part, processes in result.parts_ns[tokens].items()
        }
    for cell, answer in answers:
        if answer.get("padding") is not None:
            result.padding = answer["padding"]
        if answer.get("lessened"):
            result.lessened[str(cell.threads)] = answer["lessened"]
        if cell.kind == "memory":
            result.weighings.append(answer["memory"])
            result.shared = sorted({*result.shared, *answer["shared"]})
            result.stability = answer.get("stability")
        else:
            result.passes_ns.setdefault(str(cell.threads), []).append(answer["passes"])
    result.memory = _typical(result.weighings)
    for threads, passes in sorted(result.passes_ns.items()):
        rates = [mixed * len(process) / sum(process) * 1e9 for process in passes]
        result.throughput[threads] = median(rates)
    starts = [answer["phases"] for cell, answer in answers if cell.kind != "memory"]
    if starts:
        result.starts_ns = {phase: [start[phase] for start in starts] for phase in PHASES}
        result.start_ms = {
            phase: median(each) / NS_PER_MS for phase, each in result.starts_ns.items()
        }
    return result


def _typical(weighings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median over processes of each kind of memory after each phase, one that was read.

    None where any process was not told.
    """
    typical: dict[str, Any] = {}
    for phase in weighings[0] if weighings else ():
        typical[phase] = {}
        for kind in weighings[0][phase]:
            read = [weighing[phase][kind] for weighing in weighings]
            typical[phase][kind] = None if None in read else median_low(read)
    return typical


def held(rows: Sequence[Row], results: Sequence[RowResult], limit: int) -> list[str]:
    """Return a warning for each row that a memory limit of ``limit`` bytes changed or did not hold.

    Each process of a row counts by the peak of its RSS until the batch, on one thread.
    """
    lines = []
    unlimited = {row.name for row in rows if not limited(row)}
    for result in results:
        name = result.name if result.target == "local" else f"{result.name} on {result.target}"
        if result.name in unlimited:
            lines.append(f"{name}: measured without the memory limit, which it does not know")
            continue
        for threads, told in sorted(result.lessened.items()):
            lines.append(f"{name}, {threads} thread{'' if threads == '1' else 's'}: {told}")
        peaks = [weighing.get("batch", {}).get("peak") for weighing in result.weighings]
        peak = max((peak for peak in peaks if peak is not None), default=0)
        if peak > limit:
            lines.append(f"{name}: a peak RSS of {told_size(peak)} is over the memory limit")
    return lines


def compare(results: Sequence[RowResult]) -> None:
    """Fill in how many times faster each row is than each peer, by tokens.

    End to end, and the engine alone where both can be taken apart.
    """

    def ratios(row: Mapping[str, float], peer: Mapping[str, float]) -> dict[str, float]:
        return {tokens: peer[tokens] / row[tokens] for tokens in row if peer.get(tokens)}

    def engine(row: RowResult) -> dict[str, float]:
        return {n: one["embed_ids"] for n, one in row.parts_ms.items() if "embed_ids" in one}

    def whole(row: RowResult) -> dict[str, float]:
        return {n: one.p50 for n, one in row.latency.items()}

    for row in results:
        for peer in results:
            if not peer.peer or peer is row:
                continue
            if found := ratios(whole(row), whole(peer)):
                row.faster[peer.name] = found
            if found := ratios(engine(row), engine(peer)):
                row.faster_engine[peer.name] = found


def judge(rows: Sequence[Row], results: Sequence[RowResult], vectors: Mapping[str, Path]) -> None:
    """Fill in each row's fidelity from the ``vectors`` its worker left, and what it falls below.

    Imports numpy, hence only after the last measurement.
    """
    import numpy as np

    from asterisk.evaluation.fidelity import compare as agreement
    from asterisk.evaluation.fidelity import compare_pairs

    by_name = {result.name: result for result in results}
    for row in rows:
        result, ours = by_name.get(row.name), vectors.get(row.name)
        if row.reference:
            theirs: Path | None = Path(row.reference)
        else:
            theirs = None if row.model else vectors.get(REFERENCE)
        if result is None or ours is None or theirs is None:
            continue
        a, b = np.load(ours), np.load(theirs)
        if a.shape != b.shape or not (np.isfinite(a).all() and a.any(axis=1).all()):
            result.failures.append(f"{row.name}: vectors {a.shape} that are no embeddings")
            result.below.append("its vectors are no embeddings")
            continue
        result.fidelity = asdict(agreement(a, b)) | asdict(compare_pairs(a, b))
        result.below = [
            f"{name} {result.fidelity[name]:.4f} is below {least:g}"
            for name, least in (row.thresholds or {}).items()
            if not result.fidelity[name] >= least  # also when it is not a number
        ]
