"""`asterisk-demo`: what this is for, in one command, on the texts that ship."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, positive, run
from asterisk.common.files import ARTIFACTS
from asterisk.common.terminal import printable, report
from asterisk.common.texts import Text, load

if TYPE_CHECKING:
    from asterisk.apps.search import Hit, Index
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Document

# Most share no word with what answers them; the last is a name that the model never learnt, for
# which words are the better way.
QUERIES = (
    "sick child fever",
    "undo a mistake",
    "protect secret login",
    "earn pay lowest allowed",
    "weather tomorrow",
    "cheap ways of cooking",
    "USEITI",
)
FEWEST = 20  # texts of a source that can be told from others
WIDTH = 66  # characters of a line of foreign text
MB = 1e6
BY_MEANING, BY_WORDS = "   by meaning  ", "   by words    "


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-demo",
        description="Index the texts that ship, search them, find near-duplicates, and report "
        "times and memory. Nothing is left behind and no network is used.",
    )
    default = "artifact folder (default: the LiteRT one, exported first if there is none)"
    it.add_argument("artifact", nargs="?", type=Path, help=default)
    where = "where that one is (%(default)s)"
    it.add_argument("--artifacts", type=Path, default=ARTIFACTS, help=where)
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once (1)")
    it.add_argument("--interactive", action="store_true", help="then ask for queries")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _demo, argv)


def _demo(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.search import Index
    from asterisk.bench.prepare import default_artifact

    artifact = arguments.artifact or default_artifact(arguments.artifacts, report)
    with (
        asterisk.load(artifact, threads=arguments.threads) as runtime,
        tempfile.TemporaryDirectory(prefix="asterisk-demo-") as folder,
        Index.create(Path(folder) / "demo.db", artifact, runtime=runtime) as index,
    ):
        texts = load()
        _print(f"{artifact.name} ({runtime.format}), {len(texts):,} texts that ship")
        start = time.perf_counter()
        index.update(map(_document, texts), runtime)
        seconds = time.perf_counter() - start
        speed = f"{len(texts):,} texts in {seconds:.1f} s ({len(texts) / seconds:,.0f} a second)"
        _print(f"Indexed {speed}: news, notes, questions, definitions, long and short.")
        _print(*_search(index, runtime, {text.id: text.text for text in texts}))
        timing = list(_time(index, runtime, texts))  # before more is in memory
        _print(*_find_duplicates(runtime, texts))
        _print(_sort(runtime, texts))
        _print(*timing)
        if arguments.interactive:
            _answer_queries(index, runtime)


def _print(*lines: str) -> None:
    print(*lines, "", sep="\n", flush=True)


def _document(text: Text) -> Document:
    from asterisk.sources import Document, digest

    source = f"asterisk/common/texts/{text.source}"
    return Document(source, text.id, "", text.text, digest("", text.text))


def _search(index: Index, runtime: Runtime, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield each query with the best hit by meaning and by words, and the words it shares."""
    from asterisk.apps.search.query import terms

    def best(hits: Sequence[Hit], query: str) -> str:
        if not hits:
            return "nothing"
        hit = hits[0]
        words = set(terms(texts[hit.key]))  # the snippet may leave out what is shared
        common = ", ".join(word for word in terms(query) if word in words)
        shared = f"shares: {common}" if common else "no word in common"
        near = "" if hit.similarity is None else f"{hit.similarity:.2f}, "
        return f"{_cut(hit.snippet)}  ({near}{shared})"

    for query in QUERIES:
        yield f"? {query}"
        yield BY_MEANING + best(index.search(query, 1, runtime, "vectors"), query)
        if index.words is not None and index.words.usable:
            yield BY_WORDS + best(index.search(query, 1, None, "words"), query)


def _time(index: Index, runtime: Runtime, texts: Sequence[Text]) -> Iterator[str]:
    """Ask every question among ``texts``, from the text to ten hits with their snippets."""
    from asterisk.bench.statistics import summarise
    from asterisk.bench.worker import snapshot

    questions = [text.text for text in texts if text.kind == "question"]
    samples = []
    for question in questions[:5] + questions:
        start = time.perf_counter_ns()
        index.search(question, 10, runtime)
        samples.append(time.perf_counter_ns() - start)
    memory, latency = snapshot(), summarise([samples[5:]])  # the first ones warm up
    times = f"median {latency.p50:.2f} ms, p95 {latency.p95:.2f} ms"
    yield f"A query, text to hits:  {times} ({latency.samples} queries, one thread)"
    sizes = {"PSS": memory["pss"], "RSS": memory["rss"], "peak RSS": memory["peak"]}
    named = [f"{name} {size / MB:.0f} MB" for name, size in sizes.items() if size is not None]
    yield f"This process:  {', '.join(named) or 'memory unknown here'}"
    yield f"The index:  {index.path.stat().st_size / MB:.1f} MB, one SQLite file"


def _find_duplicates(runtime: Runtime, texts: Sequence[Text]) -> Iterator[str]:
    from asterisk.apps.dedup import deduplicate

    start = time.perf_counter()
    found = deduplicate([text.text for text in texts], runtime)
    seconds, count = time.perf_counter() - start, len(found.clusters)
    clusters = "1 cluster" if count == 1 else f"{count} clusters"
    near = f"Near-duplicates among {found.rows:,} texts, cosine {found.threshold:g} and more"
    yield f"{near}: {clusters} in {seconds:.1f} s, embedding included."
    for cluster in found.clusters:
        for member, similarity in zip(cluster.members, cluster.similarities, strict=True):
            mark = "*" if member == cluster.representative else f"{similarity:.2f}"
            yield f"   {mark:>4} {_cut(texts[member].text)}"


def _sort(runtime: Runtime, texts: Sequence[Text]) -> str:
    """Find a text's source by the nearest mean vector; half the texts are examples."""
    import numpy as np

    counts = Counter(text.source for text in texts)
    some = [text for text in texts if counts[text.source] >= FEWEST]
    labels, true = np.unique([text.source for text in some], return_inverse=True)
    vectors = runtime.encode([text.text for text in some])
    train, test = vectors[::2], vectors[1::2]
    means = np.stack([train[true[::2] == label].mean(0) for label in range(len(labels))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    right = float(((test @ means.T).argmax(1) == true[1::2]).mean())
    largest = float(np.bincount(true[1::2]).max() / len(test))
    return (
        f"Sorted {len(test)} texts into {len(labels)} sources by the nearest mean of "
        f"{len(train)} others: {right:.0%} right (always the largest: {largest:.0%})."
    )


def _answer_queries(index: Index, runtime: Runtime) -> None:
    from asterisk.cli.search import format_hit, read_queries

    def answer(query: str) -> None:
        hits = index.search(query, 5, runtime)
        for number, hit in enumerate(hits, 1):
            print(format_hit(number, hit), flush=True)
        if not hits:
            report("nothing found")

    read_queries(answer)


def _cut(text: str) -> str:
    line = printable(text)
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"


if __name__ == "__main__":
    sys.exit(main())
