"""One cell in a process of its own: a JSON object on stdin, one JSON line back.

Imports the standard library and what the cell's row names, nothing else. The line goes out on the
stdout this process was given; whatever an engine prints goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from asterisk.bench import measure, memory
from asterisk.bench.answer import answer

Spec = Mapping[str, Any]


def time_latency(spec: Spec) -> dict[str, Any]:
    """Time the start, single calls by length, their parts, and throughput."""
    watch = measure.Stopwatch()
    encoder = measure.start(spec, watch)
    return {
        "phases": watch.phases,
        "latency": measure.latency(encoder, spec),
        "parts": measure.parts(encoder, spec["buckets"][spec["steady"]], spec["effort"]),
        "passes": measure.throughput(encoder, spec),
    }


def time_throughput(spec: Spec) -> dict[str, Any]:
    """Time the start and throughput."""
    watch = measure.Stopwatch()
    encoder = measure.start(spec, watch)
    return {"phases": watch.phases, "passes": measure.throughput(encoder, spec)}


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
    shared = memory.sharers()
    if spec["vectors"]:
        _embed(encoder, spec)
    return {"memory": phases, "shared": shared}


def _embed(encoder: measure.Encoder, spec: Spec) -> None:
    import numpy as np

    texts = json.loads(Path(spec["texts"]).read_text("utf-8"))
    np.save(spec["vectors"], encoder.encode(texts[: spec["count"]]))


KINDS: Mapping[str, Callable[[Spec], dict[str, Any]]] = {
    "latency": time_latency,
    "throughput": time_throughput,
    "memory": weigh,
}


def attempt(spec: Spec) -> dict[str, Any]:
    """Measure what ``spec`` says, or say in one line why not."""
    try:
        return KINDS[spec["kind"]](spec)
    except Exception as failure:
        told = " ".join(str(failure).split())
        return {"error": f"{type(failure).__name__}: {told}" if told else repr(failure)}


def main() -> int:
    """Read a spec, measure, answer."""
    spec = json.load(sys.stdin)
    answer(lambda: attempt(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
