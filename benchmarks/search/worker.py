"""One step in a process of its own: a JSON object on stdin, one JSON line back.

``choose`` picks summaries of a length, ``build`` makes the indexes of a corpus, ``rate`` times
indexing, ``query`` times queries and reads memory, ``brute`` does so for a matrix in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asterisk.bench.worker import error, serve, sharers, snapshot
from asterisk.model.config import prompt_name_of

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime, Vectors
    from asterisk.sources import Document

Spec = Mapping[str, Any]
# Of whatever library numpy multiplies with: a query is to be one thread's work.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Remembering:
    """A runtime that embeds a text once and knows its vector from then on."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.known: dict[bytes, Vectors] = {}

    def encode(self, texts: str | Sequence[str], **options: Any) -> Vectors:
        """Embed as the runtime does."""
        import numpy as np

        many = [texts] if isinstance(texts, str) else list(texts)
        digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in many]
        new = {key: text for key, text in zip(digests, many, strict=True) if key not in self.known}
        if new:
            vectors = self.runtime.encode(list(new.values()), **options)
            self.known.update(zip(new, vectors, strict=True))
        rows = [self.known[key] for key in digests]
        return rows[0] if isinstance(texts, str) else np.stack(rows)

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> Vectors:
        """Embed documents as the runtime does: the index asks for them by their role."""
        if options.get("prompt_name") is None:
            options["prompt_name"] = prompt_name_of("document", self.runtime.prompts)
        return self.encode(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)


def choose(spec: Spec) -> dict[str, Any]:
    """Keep the texts whose length is within a fifth of ``tokens``, ``count`` at most."""
    import asterisk

    texts = _texts(spec)
    low, high = spec["tokens"] * 0.8, spec["tokens"] * 1.2
    chosen, total = [], 0
    with asterisk.load(spec["artifact"]) as runtime:
        for text in texts:
            length = len(runtime.tokenize(text))
            if low <= length <= high:
                chosen.append(text)
                total += length
            if len(chosen) == spec["count"]:
                break
    Path(spec["out"]).write_text(json.dumps(chosen), "utf-8")
    return {"count": len(chosen), "tokens": total / max(1, len(chosen))}


def build(spec: Spec) -> dict[str, Any]:
    """Make an index a precision from ``texts``; save the vectors of all passages as one matrix."""
    import numpy as np

    import asterisk
    from asterisk.apps.search import Index

    texts = _texts(spec)
    built: dict[str, Any] = {}
    with asterisk.load(spec["artifact"], threads=spec["threads"]) as runtime:
        once = Remembering(runtime)
        for precision, path in spec["databases"].items():
            begun = time.perf_counter_ns()
            with Index.create(path, spec["artifact"], precision=precision) as index:
                index.update(_documents(texts), once)  # type: ignore[arg-type]
                built[precision] = {
                    "passages": index.passages,
                    "documents": index.documents,
                    "seconds": (time.perf_counter_ns() - begun) / 1e9,
                }
            built[precision]["bytes"] = Path(path).stat().st_size
    np.save(spec["vectors"], np.stack(list(once.known.values())))
    return {"databases": built}


def rate(spec: Spec) -> dict[str, Any]:
    """Time indexing ``texts`` into a new file, and embedding them alone; texts a second."""
    import asterisk
    from asterisk.apps.search import Index

    texts = _texts(spec)
    with asterisk.load(spec["artifact"], threads=spec["threads"]) as runtime:
        runtime.encode(texts[:64])
        begun, at_work = time.perf_counter_ns(), time.process_time_ns()
        with Index.create(spec["database"], spec["artifact"]) as index:
            index.update(_documents(texts), runtime)
        indexed, worked = time.perf_counter_ns() - begun, time.process_time_ns() - at_work
        begun = time.perf_counter_ns()
        for start in range(0, len(texts), 1_024):
            runtime.encode(texts[start : start + 1_024])
        embedded = time.perf_counter_ns() - begun
    return {
        "indexed_per_s": len(texts) / indexed * 1e9,
        "cpu_ns": worked / len(texts),
        "embedded_per_s": len(texts) / embedded * 1e9,
        "memory": snapshot(),
    }


def query(spec: Spec) -> dict[str, Any]:
    """Time each query in each mode, in turns; say when the first hit was there, and memory."""
    import asterisk
    from asterisk.apps.search import Index

    with Index.open(spec["database"]) as index, asterisk.load(spec["artifact"]) as runtime:
        found = len(index.search(spec["queries"][0], spec["k"], runtime))
        first = time.monotonic_ns() - spec["at"]
        searches = {
            mode: lambda text, mode=mode: index.search(text, spec["k"], runtime, mode)
            for mode in spec["modes"]
        }
        times = _timed(searches, spec)
    return {"first_ns": first, "found": found, **times}


def brute(spec: Spec) -> dict[str, Any]:
    """Time the same with all vectors in memory as float32, one product and a partial sort."""
    import numpy as np

    import asterisk

    vectors = np.load(spec["vectors"])
    with asterisk.load(spec["artifact"]) as runtime:

        def search(text: str) -> list[int]:
            scores = vectors @ runtime.encode_query(text)
            best = np.argpartition(scores, -spec["k"])[-spec["k"] :]
            ranked: list[int] = best[np.argsort(-scores[best])].tolist()
            return ranked

        found = len(search(spec["queries"][0]))
        first = time.monotonic_ns() - spec["at"]
        times = _timed({"vectors": search}, spec)
    return {"first_ns": first, "found": found, **times}


def _timed(searches: Mapping[str, Callable[[str], Sequence[Any]]], spec: Spec) -> dict[str, Any]:
    for text in spec["queries"][: spec["warm"]]:
        for search in searches.values():
            search(text)
    samples: dict[str, list[int]] = {mode: [] for mode in searches}
    # What a query takes of a processor, which a busy machine changes far less than how long.
    cpu: dict[str, list[int]] = {mode: [] for mode in searches}
    for text in spec["queries"]:
        for mode, search in searches.items():
            begun, at_work = time.perf_counter_ns(), time.process_time_ns()
            search(text)
            cpu[mode].append(time.process_time_ns() - at_work)
            samples[mode].append(time.perf_counter_ns() - begun)
    return {
        "samples": samples,
        "cpu": cpu,
        "memory": snapshot(),
        "shared": sharers(),
    }


def _texts(spec: Spec) -> list[str]:
    texts: list[str] = json.loads(Path(spec["texts"]).read_text("utf-8"))
    return texts


def _documents(texts: Sequence[str]) -> Iterator[Document]:
    from asterisk.sources import Document, digest

    for number, text in enumerate(texts):
        yield Document("corpus", str(number), "", text, digest("", text))


KINDS: Mapping[str, Callable[[Spec], dict[str, Any]]] = {
    "choose": choose,
    "build": build,
    "rate": rate,
    "query": query,
    "brute": brute,
}


def attempt(spec: Spec) -> dict[str, Any]:
    """Do what ``spec`` says, or say in one line why not."""
    try:
        for name in ONE_THREAD:
            os.environ[name] = "1"  # before anything imports numpy
        return KINDS[spec["kind"]](spec)
    except Exception as failure:
        return error(failure)


if __name__ == "__main__":
    sys.exit(serve(attempt))
