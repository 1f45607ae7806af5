"""One method over one file of texts, in a process of its own.

Reads a JSON object from standard input and answers with one. Time counts from the start of the
process (CPU seconds stand beside it, for a machine that is busy with other things), memory is the
kernel's peak (VmHWM); all are taken before any other threshold is tried.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.bench.worker import serve, snapshot

if TYPE_CHECKING:
    from asterisk.apps.dedup.texts import Cluster

Places = npt.NDArray[np.int64]
Sweep = Callable[[], tuple[Places, Places, npt.NDArray[np.float64], dict[str, Places]]]

LEAST = 0.80  # cosine of the pairs that are kept for other thresholds
MOST = 12  # bits


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a method, measure it, and leave its pairs in a file."""
    phases: dict[str, float] = {}
    sweep = _asterisk(spec, phases) if spec["method"] == "asterisk" else _hashing(spec, phases)
    answer: dict[str, Any] = {
        "seconds": time.time() - spec["started"],
        "cpu": time.process_time(),
        "phases": phases,
        "peak": snapshot()["peak"],
    }
    first, second, nearness, stands = sweep()
    found: dict[str, Any] = {"first": first, "second": second, "nearness": nearness, **stands}
    np.savez(spec["out"], **found)
    return answer


def _asterisk(spec: dict[str, Any], phases: dict[str, float]) -> Sweep:
    import asterisk
    from asterisk.apps.dedup.clustering import UnionFind, split
    from asterisk.apps.dedup.deduplication import cluster as clustered
    from asterisk.apps.dedup.deduplication import embed, numbers_of
    from asterisk.apps.dedup.texts import DIFFER, Spool, collect, contradict
    from benchmarks.dedup.pairs import pairs

    spool = Spool()
    with Path(spec["texts"]).open(encoding="utf-8") as file:
        copies = collect((line[:-1] for line in file), spool)
    phases["read"] = time.time() - spec["started"]
    with asterisk.load(spec["artifact"], threads=spec["threads"]) as runtime:
        vectors = embed(copies, spool, runtime)
    phases["embedded"] = time.time() - spec["started"]
    exact = spec["exact"]
    of = numbers_of(copies, spool) if spec["numbers"] == DIFFER else None
    found = clustered(
        copies, vectors, spec["threshold"], threads=spec["threads"], exact=exact, numbers=of
    )
    phases["clustered"] = time.time() - spec["started"]
    first_run = _stands(found.rows, found.clusters)

    def sweep() -> tuple[Places, Places, npt.NDArray[np.float64], dict[str, Places]]:
        first, second, cosines = pairs(vectors, LEAST, threads=spec["threads"])
        stands = {f"at_{spec['threshold']}": first_run}
        for threshold in spec["thresholds"]:
            if threshold != spec["threshold"]:
                near, links = cosines >= threshold, UnionFind(len(vectors))
                links.union(first[near], second[near])
                again = copies.spread(split(links, vectors, threshold, of))
                stands[f"at_{threshold}"] = _stands(copies.rows, again)
        if of is not None:
            numbers = {row: of(row) for row in {*first.tolist(), *second.tolist()}}
            agree = np.array(
                [
                    not contradict(numbers[i], numbers[j])
                    for i, j in zip(first.tolist(), second.tolist(), strict=True)
                ],
                np.bool_,
            )
            first, second, cosines = first[agree], second[agree], cosines[agree]
        return *_with_copies(copies, first, second, cosines), stands

    return sweep


def _stands(rows: int, clusters: Iterable[Cluster]) -> Places:
    stands = np.arange(rows)
    for cluster in clusters:
        stands[list(cluster.members)] = cluster.representative
    return stands


def _with_copies(
    copies: Any, first: Places, second: Places, cosines: npt.NDArray[np.float64]
) -> tuple[Places, Places, npt.NDArray[np.float64]]:
    """Return pairs of distinct texts as pairs of all rows, those of exact copies among them."""
    rows = [copies.of(number) for number in range(len(copies.distinct))]
    out: list[tuple[int, int, float]] = []
    for alike in rows:
        out += [(i, j, 1.0) for at, i in enumerate(alike) for j in alike[at + 1 :]]
    for i, j, cosine in zip(first.tolist(), second.tolist(), cosines.tolist(), strict=True):
        out += [(min(a, b), max(a, b), cosine) for a in rows[i] for b in rows[j]]
    if not out:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    one, other, nearness = zip(*out, strict=True)
    return np.array(one, np.int64), np.array(other, np.int64), np.array(nearness)


def _hashing(spec: dict[str, Any], phases: dict[str, float]) -> Sweep:
    from asterisk.apps.dedup.texts import digest
    from benchmarks.dedup import simhash
    from benchmarks.dedup.score import first_stands

    with Path(spec["texts"]).open(encoding="utf-8") as file:
        lines = (line[:-1] for line in file)
        if spec["method"] == "exact":
            seen: dict[bytes, int] = {}
            stands = np.array(
                [seen.setdefault(digest(text), row) for row, text in enumerate(lines)]
            )
        else:
            hashes = simhash.hashes(lines, spec["method"].removeprefix("simhash "))
    phases["hashed"] = time.time() - spec["started"]
    if spec["method"] == "exact":

        def of_digests() -> tuple[Places, Places, npt.NDArray[np.float64], dict[str, Places]]:
            order = np.argsort(stands, kind="stable")
            groups = np.split(order, np.flatnonzero(np.diff(stands[order])) + 1)
            pairs = [(i, j) for rows in groups for at, i in enumerate(rows) for j in rows[at + 1 :]]
            found = np.array(pairs, np.int64).reshape(-1, 2)
            return found[:, 0], found[:, 1], np.zeros(len(found)), {"at_0": stands}

        return of_digests
    first, second, _ = simhash.within(hashes, simhash.NEAR)
    first_stands(len(hashes), first, second)
    phases["compared"] = time.time() - spec["started"]

    def sweep() -> tuple[Places, Places, npt.NDArray[np.float64], dict[str, Places]]:
        one, other, bits = simhash.within(hashes, MOST)
        stands = {
            f"at_{most}": first_stands(len(hashes), one[bits <= most], other[bits <= most])
            for most in spec["thresholds"]
        }
        return one, other, bits.astype(np.float64), stands

    return sweep


if __name__ == "__main__":
    sys.exit(serve(measure))
