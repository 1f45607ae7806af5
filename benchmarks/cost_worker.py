"""One process of `benchmarks.cost`: the worker's loop and a bare one, in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from asterisk.bench import worker

TURNS, CALLS = 40, 50
IDLE_CALLS = 2_000
Call = Callable[[str], object]


def turns(call: Call, texts: Sequence[str], calls: int) -> tuple[list[list[float]], list[float]]:
    """Return ns a call of a bare loop and of the worker's by turn, and what the worker reports."""
    items = [texts[index % len(texts)] for index in range(calls)]
    effort = {"calls": calls, "seconds": 0.0, "most_seconds": 60.0, "cap": calls}
    pairs, reported = [], []
    for turn in range(TURNS + 1):
        began = perf_counter_ns()
        for item in items:
            call(item)
        between = perf_counter_ns()
        taken = worker.samples(call, texts, effort)
        ended = perf_counter_ns()
        if turn:  # the first warms up
            pairs.append([(between - began) / calls, (ended - between) / calls])
            reported.append(sum(taken) / calls)
    return pairs, reported


def nothing(text: str) -> None:
    """Do what a call does apart from its work."""


def compare(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Open the engine of ``spec`` and time both loops, with it and with nothing."""
    encoder = worker.start(spec, lambda phase: None)
    texts = spec["buckets"][spec["steady"]]
    idle, reported = turns(nothing, texts, IDLE_CALLS)
    return {"engine": turns(encoder.encode, texts, CALLS)[0], "nothing": idle, "reported": reported}


if __name__ == "__main__":
    sys.exit(worker.serve(compare))
