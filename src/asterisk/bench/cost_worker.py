"""One process of `asterisk.bench.cost`: the worker's loop and a bare one, in turns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from asterisk.bench import measure
from asterisk.bench.answer import answer

TURNS, CALLS = 40, 50
IDLE_CALLS = 2_000
Call = Callable[[str], object]


def turns(call: Call, texts: Sequence[str], calls: int) -> tuple[list[list[float]], list[float]]:
    """Return ns a call of a bare loop and of the worker's by turn, and what the worker tells."""
    items = [texts[index % len(texts)] for index in range(calls)]
    effort = {"calls": calls, "seconds": 0.0, "most_seconds": 60.0, "cap": calls}
    pairs, told = [], []
    for turn in range(TURNS + 1):
        began = perf_counter_ns()
        for item in items:
            call(item)
        between = perf_counter_ns()
        taken = measure.samples(call, texts, effort)
        ended = perf_counter_ns()
        if turn:  # the first warms up
            pairs.append([(between - began) / calls, (ended - between) / calls])
            told.append(sum(taken) / calls)
    return pairs, told


def nothing(text: str) -> None:
    """Do what a call does apart from its work."""


def compare(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Open the engine of ``spec`` and time both loops, with it and with nothing."""
    encoder = measure.start(spec, lambda phase: None)
    texts = spec["buckets"][spec["steady"]]
    idle, told = turns(nothing, texts, IDLE_CALLS)
    return {"engine": turns(encoder.encode, texts, CALLS)[0], "nothing": idle, "told": told}


def main() -> int:
    """Read a spec, time, answer."""
    spec = json.load(sys.stdin)
    answer(lambda: compare(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
