"""Timing inside a worker: phases of a start, single calls, whole lists. Standard library only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Protocol

PARTS = ("tokenize", "embed_ids")
PART_CALLS = 200
PART_SECONDS = 0.25
Clock = Callable[[], int]


class Encoder(Protocol):
    """What a row's opener returns; `asterisk.runtimes.runtime.Runtime` is one."""

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        ...


def start(spec: Mapping[str, Any], mark: Callable[[str], None]) -> Encoder:
    """Import, load and call once, each followed by ``mark`` with the phase's name."""
    for module in spec["modules"]:
        importlib.import_module(module)
    mark("import")
    encoder = load(spec)
    mark("load")
    encoder.encode(spec["first"])
    mark("first")
    return encoder


def load(spec: Mapping[str, Any]) -> Encoder:
    """Open ``spec``'s path with its opener, ``module:function``, and the options it names."""
    module, _, function = spec["opener"].partition(":")
    opener = getattr(importlib.import_module(module), function)
    options = {name: spec[name] for name in ("threads", "max_memory") if name in spec}
    encoder: Encoder = opener(Path(spec["path"]), **options)
    return encoder


def lessened(encoder: Any) -> str:
    """Return what a memory limit did not allow, in one line; empty if nothing."""
    told: str = getattr(getattr(encoder, "budget", None), "told", "")
    return told


class Stopwatch:
    """Notes how long each phase took, in ns."""

    def __init__(self) -> None:
        self.phases: dict[str, int] = {}
        self.last = perf_counter_ns()

    def __call__(self, phase: str) -> None:
        """Note that ``phase`` ends now."""
        now = perf_counter_ns()
        self.phases[phase] = now - self.last
        self.last = perf_counter_ns()


def warm(call: Callable[[Any], object], inputs: Sequence[Any], calls: int, seconds: float) -> None:
    """Call until both ``calls`` and ``seconds`` are reached."""
    end = perf_counter_ns() + int(seconds * 1e9)
    for done, item in enumerate(cycle(inputs)):
        if done >= calls and perf_counter_ns() >= end:
            return
        call(item)


def samples(
    call: Callable[[Any], object],
    inputs: Sequence[Any],
    effort: Mapping[str, Any],
    clock: Clock = perf_counter_ns,
) -> list[int]:
    """Time single calls over ``inputs`` again and again; return every duration in ns.

    Stops as `asterisk.bench.plan.Effort` says.
    """
    taken: list[int] = []
    began = clock()
    for item in _until(inputs, taken, effort, lambda: clock() - began):
        before = clock()
        call(item)
        taken.append(clock() - before)
    return taken


def _until(
    inputs: Sequence[Any], taken: list[int], effort: Mapping[str, Any], elapsed: Clock
) -> Iterator[Any]:
    for item in cycle(inputs):
        spent = elapsed() / 1e9
        enough = len(taken) >= effort["calls"] and spent >= effort["seconds"]
        if enough or spent >= effort["most_seconds"] or len(taken) >= effort["cap"]:
            return
        yield item


def latency(encoder: Encoder, spec: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the samples of each bucket by its number of tokens; one text a call."""
    effort, buckets = spec["effort"], spec["buckets"]
    mixed = [text for texts in zip(*buckets.values(), strict=False) for text in texts]
    warm(encoder.encode, mixed, effort["warm_calls"], effort["warm_seconds"])
    taken = {}
    for tokens, texts in buckets.items():
        warm(encoder.encode, texts, effort["warm_calls"], 0.0)
        taken[tokens] = samples(encoder.encode, texts, effort)
    return taken


def parts(encoder: Any, spec: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Return samples of tokenising and of the engine alone by bucket, where an encoder has both."""
    if not all(hasattr(encoder, part) for part in PARTS):
        return {}
    effort = spec["effort"]
    few = {**effort, "calls": PART_CALLS, "seconds": 0.0, "most_seconds": PART_SECONDS}
    taken = {}
    for tokens, texts in spec["buckets"].items():
        ids = [encoder.tokenize(text) for text in texts]
        warm(encoder.embed_ids, ids, effort["warm_calls"], 0.0)
        taken[tokens] = {
            "tokenize": samples(encoder.tokenize, texts, few),
            "embed_ids": samples(encoder.embed_ids, ids, few),
        }
    return taken


def padding(encoder: Any, spec: Mapping[str, Any]) -> float | None:
    """Return the share of padding among the tokens of the mixed list; None if it does not tell."""
    share: float | None = encoder.padding(spec["mixed"]) if hasattr(encoder, "padding") else None
    return share


def throughput(encoder: Encoder, spec: Mapping[str, Any]) -> list[int]:
    """Return how long each pass over the mixed list took, in ns; at least two passes."""
    effort, mixed = spec["effort"], spec["mixed"]
    encoder.encode(mixed)
    enough = {**effort, "calls": 2, "most_seconds": effort["most_seconds"] + effort["seconds"]}
    return samples(encoder.encode, [mixed], enough)
