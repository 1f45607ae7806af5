"""One cell in a process of its own: a JSON object on stdin, one JSON line back.

Imports the standard library and what the cell's row names, nothing else. The line goes out on the
stdout this process was given; whatever an engine prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asterisk.bench import counting, measure, memory
from asterisk.bench.answer import answer, refusal

Spec = Mapping[str, Any]


def time_latency(spec: Spec) -> dict[str, Any]:
    """Time the start, single calls by length, their parts, and throughput."""
    watch = measure.Stopwatch()
    encoder = measure.start(spec, watch)
    return {
        "phases": watch.phases,
        "latency": measure.latency(encoder, spec),
        "parts": measure.parts(encoder, spec),
        "passes": measure.throughput(encoder, spec),
        "padding": measure.padding(encoder, spec),
        "lessened": measure.lessened(encoder),
    }


def time_throughput(spec: Spec) -> dict[str, Any]:
    """Time the start and throughput."""
    watch = measure.Stopwatch()
    encoder = measure.start(spec, watch)
    return {
        "phases": watch.phases,
        "passes": measure.throughput(encoder, spec),
        "lessened": measure.lessened(encoder),
    }


def weigh(spec: Spec) -> dict[str, Any]:
    """Read memory after each phase; then, memory being known, embed the texts of the fidelity."""
    phases: dict[str, memory.Snapshot] = {"start": memory.snapshot()}

    def mark(phase: str) -> None:
        phases[phase] = memory.snapshot()

    encoder = measure.start(spec, mark)
    measure.warm(encoder.encode, spec["buckets"][spec["steady"]], spec["calls"], 0.0)
    mark("steady")
    encoder.encode(spec["long"])
    mark("long")
    encoder.encode(spec["batch"])
    mark("batch")
    shared = memory.sharers()
    if spec["vectors"]:
        _embed(encoder, spec)
    stable = stability(encoder, spec["varied"])
    return {
        "memory": phases,
        "shared": shared,
        "stability": stable,
        "lessened": measure.lessened(encoder),
    }


def stability(encoder: measure.Encoder, texts: Sequence[str]) -> float | None:
    """Return the smallest cosine between a text embedded alone and in the list of all ``texts``.

    None if a vector is no direction: all zeros, or not finite.
    """
    import numpy as np

    from asterisk.evaluation.fidelity import stability as smallest

    alone = np.stack([encoder.encode(text) for text in texts])
    listed = np.asarray(encoder.encode(texts))
    if not all(np.isfinite(some).all() and some.any(1).all() for some in (alone, listed)):
        return None
    return smallest(alone, listed)


def _embed(encoder: measure.Encoder, spec: Spec) -> None:
    import numpy as np

    texts = json.loads(Path(spec["texts"]).read_text("utf-8"))
    np.save(spec["vectors"], encoder.encode(texts[: spec["count"]]))


def embed(spec: Spec) -> dict[str, Any]:
    """Embed the texts of the fidelity, under an emulator; let it count what an encode costs."""
    encoder = measure.start(spec, lambda phase: None)
    marked = counting.run(encoder.encode, spec["counted"])
    _embed(encoder, spec)
    return {"marked": marked}


KINDS: Mapping[str, Callable[[Spec], dict[str, Any]]] = {
    "latency": time_latency,
    "throughput": time_throughput,
    "memory": weigh,
    "vectors": embed,
}


def attempt(spec: Spec) -> dict[str, Any]:
    """Measure what ``spec`` says, or say in one line why not."""
    try:
        if spec.get("cpus"):
            os.sched_setaffinity(0, spec["cpus"])  # before an engine starts its threads
        return KINDS[spec["kind"]](spec)
    except Exception as failure:
        return refusal(failure)


def main() -> int:
    """Read a spec, measure, answer."""
    spec = json.load(sys.stdin)
    answer(lambda: attempt(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
