"""From the answers of the workers to the rows of the report, and how the rows compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from pathlib import Path
from statistics import median, median_low
from typing import TYPE_CHECKING, Any

from asterisk.bench.machine import weigh
from asterisk.bench.plan import REFERENCE, Cell, Row
from asterisk.bench.results import RowResult
from asterisk.bench.statistics import NS_PER_MS, summarise
from asterisk.runtimes.memory_budget import format_size

if TYPE_CHECKING:
    from asterisk.evaluation.fidelity import Vectors

PHASES = ("import", "load", "first")
EMULATED_EVERY = 16  # one text in so many is embedded under an emulator, which takes its time
HOME = "home"  # where the reference is embedded: the first local target
ROUNDING = 1e-9
Table = dict[str, dict[str, dict[str, float]]]


@dataclass(slots=True)
class RunState:
    """What has been measured so far, on every target: ``rows`` with their ``results``, in order."""

    rows: list[Row] = field(default_factory=list)
    results: list[RowResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # cannot be had here, nor was insisted on
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)  # as in the report
    # The vectors by target, or `HOME`, and row, in a folder that is gone after the run.
    files: dict[str, dict[str, Path]] = field(default_factory=dict)

    def add_failures(self, failures: Mapping[str, Sequence[str]]) -> None:
        """Add the failures of rows that have no result to carry them."""
        for name, lines in failures.items():
            if lines:
                self.failed[name] = "; ".join([*filter(None, [self.failed.get(name)]), *lines])

    def judge(self) -> None:
        """Fill in every row's fidelity and what it is faster than; imports numpy.

        A row on another target is compared with the FP32 vectors of this machine.
        """
        home = self.files.get(HOME, {})
        for target in dict.fromkeys(result.target for result in self.results):
            mine = [i for i, result in enumerate(self.results) if result.target == target]
            rows, results = [self.rows[i] for i in mine], [self.results[i] for i in mine]
            vectors = self.files.get(target, home)
            if target in self.files:
                rows = [_with_reference(row, home, vectors.get(row.name)) for row in rows]
            judge(rows, results, vectors)
            compare(results)


def _with_reference(row: Row, home: Mapping[str, Path], ours: Path | None) -> Row:
    """Give ``row`` the reference of this machine, of the texts that ``ours`` are of."""
    if row.reference or row.model or REFERENCE not in home or ours is None:
        return row
    import numpy as np

    some = np.load(home[REFERENCE])[::EMULATED_EVERY]
    if len(np.load(ours)) != len(some):
        return replace(row, reference=str(home[REFERENCE]))
    reference = ours.with_suffix(".reference.npy")
    np.save(reference, some)
    return replace(row, reference=str(reference))


def collect(row: Row, answers: Sequence[tuple[Cell, Mapping[str, Any]]], mixed: int) -> RowResult:
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
            for phase in PHASES:
                result.starts_ns.setdefault(phase, []).append(answer["phases"][phase])
    result.memory = _typical(result.weighings)
    for threads, passes in sorted(result.passes_ns.items()):
        rates = [mixed * len(process) / sum(process) * 1e9 for process in passes]
        result.throughput[threads] = median(rates)
    result.start_ms = {phase: median(each) / NS_PER_MS for phase, each in result.starts_ns.items()}
    return result


def _typical(weighings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median by phase and kind, one that was read; None where a process's is unknown."""
    typical: dict[str, Any] = {}
    for phase, kinds in weighings[0].items() if weighings else ():
        read = {kind: [weighing[phase][kind] for weighing in weighings] for kind in kinds}
        typical[phase] = {
            kind: None if None in sizes else median_low(sizes) for kind, sizes in read.items()
        }
    return typical


def memory_warnings(rows: Sequence[Row], results: Sequence[RowResult], limit: int) -> list[str]:
    """Return a warning for each row that a ``limit`` in bytes changed, or that exceeded it."""
    lines = []
    unlimited = {row.name for row in rows if not row.limited}
    for result in results:
        name = result.name if result.target == "local" else f"{result.name} on {result.target}"
        if result.name in unlimited:
            lines.append(f"{name}: measured without the memory limit, which it does not know")
            continue
        for threads, line in sorted(result.lessened.items()):
            lines.append(f"{name}, {threads} thread{'' if threads == '1' else 's'}: {line}")
        peaks = [weighing.get("batch", {}).get("peak") for weighing in result.weighings]
        peak = max((peak for peak in peaks if peak is not None), default=0)
        if peak > limit:
            lines.append(f"{name}: a peak RSS of {format_size(peak)} is over the memory limit")
    return lines


def compare(results: Sequence[RowResult]) -> None:
    """Fill in how many times faster each row is than each peer, by tokens."""
    for row in results:
        for peer in results:
            if peer.peer and peer is not row:
                for figures, mine, theirs in (
                    (row.faster, _whole(row), _whole(peer)),
                    (row.faster_engine, _engine(row), _engine(peer)),
                ):
                    if found := {n: theirs[n] / mine[n] for n in mine if theirs.get(n)}:
                        figures[peer.name] = found


def _whole(row: RowResult) -> dict[str, float]:
    return {tokens: figures.p50 for tokens, figures in row.latency.items()}


def _engine(row: RowResult) -> dict[str, float]:
    return {n: parts["embed_ids"] for n, parts in row.parts_ms.items() if "embed_ids" in parts}


def judge(rows: Sequence[Row], results: Sequence[RowResult], vectors: Mapping[str, Path]) -> None:
    """Fill in each row's fidelity from the ``vectors`` its worker left, and what it falls below.

    Imports numpy, hence only after the last measurement.
    """
    import numpy as np

    from asterisk.evaluation import fidelity

    by_name = {result.name: result for result in results}
    for row in rows:
        result, ours = by_name.get(row.name), vectors.get(row.name)
        theirs = None if row.model else vectors.get(REFERENCE)
        if row.reference:
            theirs = Path(row.reference)
        if result is None or ours is None or theirs is None:
            continue
        a, b = np.load(ours), np.load(theirs)
        if a.shape != b.shape or not _is_sound(a):
            result.failures.append(f"{row.name}: vectors {a.shape} that are no embeddings")
            result.below.append("its vectors are no embeddings")
            continue
        figures = asdict(fidelity.compare(a, b)) | asdict(fidelity.compare_pairs(a, b))
        result.fidelity = figures
        result.below = [
            f"{name} {figures[name]:.4f} is below {least:g}"
            for name, least in (row.thresholds or {}).items()
            if not figures[name] >= least  # also when it is not a number
        ]


def interchange(vectors: Mapping[str, Vectors], reference: Vectors) -> Table:
    """Return what happens when one row embeds the queries and another the index.

    ``vectors`` float [n, d] by row and the FP32 ``reference``, all of the same texts; n > 10, no
    row all zeros. ``cosine_mean`` is that of the same text's two vectors, ``overlap_at_10`` the
    mean share of a query's ten nearest texts, itself left out, that FP32 on both sides finds too.
    """
    import numpy as np

    from asterisk.evaluation.fidelity import common, nearest, unit_rows

    truth = unit_rows(reference)
    expected = nearest(truth, truth)
    units = {name: unit_rows(some) for name, some in vectors.items()}

    def figures(a: Any, b: Any) -> dict[str, float]:
        cosine = float(np.einsum("ij,ij->i", a, b).mean())
        return {"cosine_mean": cosine, "overlap_at_10": common(nearest(a, b), expected)}

    return {
        query: {index: figures(a, b) for index, b in units.items()} for query, a in units.items()
    }


def measured_interchange(rows: Sequence[Row], files: Mapping[str, Path]) -> Table:
    """Return the table of those ``rows`` that share an embedding space, from their .npy files.

    Rows with unsound vectors are left out. Empty without FP32 vectors or with fewer than two rows.
    """
    import numpy as np

    names = [row.name for row in rows if not row.peer and row.name in files]
    if REFERENCE not in names:
        return {}
    vectors = {name: np.load(files[name]) for name in names}
    shape = vectors[REFERENCE].shape
    sound = {
        name: some for name, some in vectors.items() if some.shape == shape and _is_sound(some)
    }
    if REFERENCE not in sound or len(sound) < 2:
        return {}
    return interchange(sound, sound[REFERENCE])


def _is_sound(vectors: Vectors) -> bool:
    """Return whether every row is a direction: finite, and not all zeros."""
    import numpy as np

    return bool(np.isfinite(vectors).all() and vectors.any(axis=1).all())


def broken_promises(rows: Sequence[Row], table: Table, fingerprint: str) -> list[str]:
    """Return a line for each pair of rows that falls short of what their artifacts promise.

    A row promises by ``fingerprint`` in its ``spaces`` that its vectors go with those of others.
    """
    promising = [row for row in rows if fingerprint in row.spaces]
    lines = []
    for query, index in permutations(promising, 2):  # a row with itself is its fidelity
        found = table.get(query.name, {}).get(index.name)
        for name, least in least_interchange(query, index).items():
            if found and not found[name] >= least:
                lines.append(
                    f"{query.name} says in compatible_with that its vectors go with those of "
                    f"{index.name}, but {name} is {found[name]:.4f}, below {least:.4f}"
                )
    return lines


def least_interchange(query: Row, index: Row) -> dict[str, float]:
    """Return the least figures that a pair of rows has to reach; FP32 itself promises all.

    The lower of the overlaps, and the cosine of two vectors that differ from FP32 in opposite ways.
    """
    limits = [row.thresholds or {} for row in (query, index)]
    angles = [math.acos(min(1.0, limit.get("cosine_mean", 1.0))) for limit in limits]
    return {
        "cosine_mean": math.cos(min(math.pi, sum(angles))) - ROUNDING,
        "overlap_at_10": min(limit.get("overlap_at_10", 1.0) for limit in limits) - ROUNDING,
    }
