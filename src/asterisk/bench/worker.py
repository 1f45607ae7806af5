"""One cell in a process of its own: a JSON object on stdin, one JSON line back.

It is what is measured, so it imports the standard library and what the cell's row names, and
nothing else.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from asterisk.common.process_memory import read_sizes

PARTS = ("tokenize", "embed_ids")
PART_CALLS, PART_SECONDS = 200, 0.25
MARK = 0x2A57E515  # getsid of a process that cannot exist
WARM_CALLS, COUNTED_CALLS = 2, 4  # calls of one text: the first ones still allocate
PROC = Path("/proc")
KIB = 1_024
_LIBRARY = re.compile(r"\S*/site-packages/([^/.]+)\S*\.so[.\d]*$")
Spec = Mapping[str, Any]
Snapshot = dict[str, int | None]


def serve(handle: Callable[[Any], Mapping[str, Any]]) -> int:
    """Read a JSON object from stdin and answer with what ``handle`` returns for it."""
    spec = json.load(sys.stdin)
    return answer(lambda: handle(spec))


def answer(make: Callable[[], Mapping[str, Any]]) -> int:
    """Print what ``make`` returns as one JSON line, and return the exit status.

    Whatever is printed meanwhile, by C too, goes to stderr.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        print(json.dumps(make()), file=channel)
    return 0


def error(failure: Exception) -> dict[str, Any]:
    """Return what a worker answers instead: one line that says why it failed."""
    text = " ".join(str(failure).split())
    return {"error": f"{type(failure).__name__}: {text}" if text else repr(failure)}


def start(spec: Spec, mark: Callable[[str], None]) -> Any:
    """Import, load and call once, each followed by ``mark`` with the phase's name."""
    for module in spec["modules"]:
        importlib.import_module(module)
    mark("import")
    encoder = load(spec)
    mark("load")
    encoder.encode(spec["first"])
    mark("first")
    return encoder


def load(spec: Spec) -> Any:
    """Open ``spec``'s path with its opener, ``module:function``, and the options it names.

    What it returns has ``encode``: one text to float32 [d], n of them to float32 [n, d], of unit
    length.
    """
    module, _, function = spec["opener"].partition(":")
    opener = getattr(importlib.import_module(module), function)
    options = {name: spec[name] for name in ("threads", "max_memory") if name in spec}
    return opener(Path(spec["path"]), **options)


def warm(call: Callable[[Any], object], inputs: Sequence[Any], calls: int, seconds: float) -> None:
    """Call until both ``calls`` and ``seconds`` are reached."""
    end = perf_counter_ns() + int(seconds * 1e9)
    for number, item in enumerate(cycle(inputs)):
        if number >= calls and perf_counter_ns() >= end:
            return
        call(item)


def samples(
    call: Callable[[Any], object],
    inputs: Sequence[Any],
    effort: Spec,
    clock: Callable[[], int] = perf_counter_ns,
) -> list[int]:
    """Time calls over ``inputs``, in ns; stops as `asterisk.bench.plan.Effort` says."""
    taken: list[int] = []
    began = clock()
    for item in cycle(inputs):
        spent = (clock() - began) / 1e9
        enough = len(taken) >= effort["calls"] and spent >= effort["seconds"]
        if enough or spent >= effort["most_seconds"] or len(taken) >= effort["cap"]:
            break
        before = clock()
        call(item)
        taken.append(clock() - before)
    return taken


def latency(encoder: Any, spec: Spec) -> dict[str, list[int]]:
    """Return the samples of each bucket by its number of tokens; one text a call."""
    effort, buckets = spec["effort"], spec["buckets"]
    mixed = [text for texts in zip(*buckets.values(), strict=False) for text in texts]
    warm(encoder.encode, mixed, effort["warm_calls"], effort["warm_seconds"])
    taken = {}
    for tokens, texts in buckets.items():
        warm(encoder.encode, texts, effort["warm_calls"], 0.0)
        taken[tokens] = samples(encoder.encode, texts, effort)
    return taken


def parts(encoder: Any, spec: Spec) -> dict[str, dict[str, list[int]]]:
    """Return samples of the tokenizer and of the engine alone by bucket; empty without both."""
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


def padding(encoder: Any, spec: Spec) -> Any:
    """Return the share of padding among the tokens of the mixed list; None if unknown."""
    return encoder.padding(spec["mixed"]) if hasattr(encoder, "padding") else None


def snapshot(proc: Path | None = None) -> Snapshot:
    """Return bytes now: ``pss``, ``private``, ``rss`` and, since the start, ``peak`` RSS.

    Of this process, or of the one whose folder under /proc is ``proc``; None where the system does
    not say. Source: `Documentation/filesystems/proc.rst` of the Linux kernel.
    """
    if proc is None:
        if not (PROC / "self/status").exists():
            return _snapshot_elsewhere()
        proc = PROC / "self"
    rollup, status = read_sizes(proc / "smaps_rollup"), read_sizes(proc / "status")
    private = [rollup.get(name) for name in ("Private_Clean", "Private_Dirty")]
    return {
        "pss": rollup.get("Pss"),
        "private": None if None in private else sum(part or 0 for part in private),
        "rss": rollup.get("Rss"),
        "peak": status.get("VmHWM"),
    }


def _snapshot_elsewhere() -> Snapshot:
    """Return RSS by psutil, where it is installed, and its peak by getrusage."""
    found: Snapshot = {"pss": None, "private": None, "rss": None, "peak": None}
    with suppress(ModuleNotFoundError):
        usage = importlib.import_module("psutil").Process().memory_info()
        found |= {"rss": usage.rss, "peak": getattr(usage, "peak_wset", None)}  # Windows
    with suppress(ModuleNotFoundError):
        resource: Any = importlib.import_module("resource")
        if found["peak"] is None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found["peak"] = peak * (1 if sys.platform == "darwin" else KIB)
    return found


def sharers(proc: Path = PROC, own: int | None = None) -> list[str]:
    """Return the installed packages of which this and another process map the same library.

    PSS then understates what this one would occupy alone.
    """
    own = os.getpid() if own is None else own
    ours = _libraries_of(proc / str(own))
    theirs: set[str] = set()
    for folder in proc.glob("[0-9]*"):
        if folder.name != str(own):
            theirs.update(_libraries_of(folder))
    return sorted({package for path, package in ours.items() if path in theirs})


def libraries(maps: str) -> dict[str, str]:
    """Return the package of each library under ``site-packages`` in a ``maps``, by its path."""
    lines = (line.split(maxsplit=5) for line in maps.splitlines())
    found = (_LIBRARY.fullmatch(line[5].strip()) for line in lines if len(line) == 6)
    return {match.group(): match.group(1) for match in found if match}


def _libraries_of(process: Path) -> dict[str, str]:
    try:
        return libraries((process / "maps").read_text("utf-8", "replace"))
    except OSError:
        return {}


def stability(encoder: Any, texts: Sequence[str]) -> float | None:
    """Return the smallest cosine of a text alone and in a list; None without a direction."""
    import numpy as np

    from asterisk.evaluation.fidelity import stability as smallest

    alone = np.stack([encoder.encode(text) for text in texts])
    listed = np.asarray(encoder.encode(texts))
    if not all(np.isfinite(some).all() and some.any(1).all() for some in (alone, listed)):
        return None
    return smallest(alone, listed)


def _save_vectors(encoder: Any, spec: Spec) -> None:
    import numpy as np

    texts = json.loads(Path(spec["texts"]).read_text("utf-8"))
    np.save(spec["vectors"], encoder.encode(texts[: spec["count"]]))


def measure_times(spec: Spec) -> dict[str, Any]:
    """Time the start and throughput and, for latency, single calls by length and their parts."""
    phases: dict[str, int] = {}
    last = perf_counter_ns()

    def mark(phase: str) -> None:
        nonlocal last
        phases[phase] = perf_counter_ns() - last
        last = perf_counter_ns()

    encoder = start(spec, mark)
    answer: dict[str, Any] = {"phases": phases}
    if spec["kind"] == "latency":
        answer |= {"latency": latency(encoder, spec), "parts": parts(encoder, spec)}
    answer["passes"] = throughput(encoder, spec)
    if spec["kind"] == "latency":
        answer["padding"] = padding(encoder, spec)
    return answer | {"lessened": _lessened(encoder)}


def throughput(encoder: Any, spec: Spec) -> list[int]:
    """Return how long each pass over the mixed list took, in ns; at least two passes."""
    effort, mixed = spec["effort"], spec["mixed"]
    encoder.encode(mixed)
    enough = {**effort, "calls": 2, "most_seconds": effort["most_seconds"] + effort["seconds"]}
    return samples(encoder.encode, [mixed], enough)


def _lessened(encoder: Any) -> str:
    """Return in one line what a memory limit did not allow; empty if nothing."""
    return str(getattr(getattr(encoder, "budget", None), "message", ""))


def measure_memory(spec: Spec) -> dict[str, Any]:
    """Read memory after each phase; only then embed the texts that fidelity is measured over."""
    phases: dict[str, Snapshot] = {"start": snapshot()}

    def mark(phase: str) -> None:
        phases[phase] = snapshot()

    encoder = start(spec, mark)
    warm(encoder.encode, spec["buckets"][spec["steady"]], spec["calls"], 0.0)
    mark("steady")
    for phase in ("long", "batch"):
        encoder.encode(spec[phase])
        mark(phase)
    shared = sharers()
    if spec["vectors"]:
        _save_vectors(encoder, spec)
    smallest = stability(encoder, spec["varied"])
    lessened = _lessened(encoder)
    return {"memory": phases, "shared": shared, "stability": smallest, "lessened": lessened}


def embed(spec: Spec) -> dict[str, Any]:
    """Embed the texts of the fidelity, under an emulator; let it count what an encode costs."""
    encoder = start(spec, lambda phase: None)
    marked = mark_calls(encoder.encode, spec["counted"])
    _save_vectors(encoder, spec)
    return {"marked": marked}


def mark_calls(call: Callable[[str], Any], texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Call ``call`` with the first text of each bucket, marking each counted call on both sides.

    A mark is a system call that fails and that nothing else makes: at each one, the plugin in
    ``targets/instructions.c`` writes its counter down. Returns the bucket of each pair of marks.
    """
    marked = []
    gc.disable()  # a collection would fall into one call or another
    for bucket, some in texts.items():
        for _ in range(WARM_CALLS):
            call(some[0])
        for _ in range(COUNTED_CALLS):
            _mark()
            call(some[0])
            _mark()
            marked.append(bucket)
    return marked


def _mark() -> None:
    with suppress(OSError):
        os.getsid(MARK)


KINDS: Mapping[str, Callable[[Spec], dict[str, Any]]] = {
    "latency": measure_times,
    "throughput": measure_times,
    "memory": measure_memory,
    "vectors": embed,
}


def attempt(spec: Spec) -> dict[str, Any]:
    """Measure what ``spec`` says, or say in one line why not."""
    try:
        if spec.get("cpus"):
            os.sched_setaffinity(0, spec["cpus"])  # before an engine starts its threads
        return KINDS[spec["kind"]](spec)
    except Exception as failure:
        return error(failure)


if __name__ == "__main__":
    sys.exit(serve(attempt))
