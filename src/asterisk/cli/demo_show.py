"""The demonstration itself: each step returns the lines that it prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asterisk.apps.dedup import deduplicate
from asterisk.apps.search.words import terms
from asterisk.bench import worker as memory
from asterisk.bench.statistics import summarise
from asterisk.common.printable import printable
from asterisk.common.texts import Text
from asterisk.sources import Document, digest

if TYPE_CHECKING:
    from asterisk.apps.search import Hit, Index
    from asterisk.runtimes.runtime import Runtime

QUERIES = (
    "sick child fever",
    "undo a mistake",
    "protect secret login",
    "earn pay lowest allowed",
    "weather tomorrow",
    "cheap ways of cooking",
    "USEITI",
)
"""What to ask. Most share no word with what answers them; the last is a name nobody was taught,
for which words are the better way."""

FEWEST = 20  # texts of a source that can be told from others
WIDTH = 66  # characters of a line of foreign text
MB = 1e6
LABEL = "   {:<12}"
BY_MEANING, BY_WORDS = LABEL.format("by meaning"), LABEL.format("by words")


@dataclass(frozen=True, slots=True)
class Shown:
    """Durations of single queries in ns, and what the process occupied once they were asked."""

    samples: tuple[int, ...]
    memory: memory.Snapshot


def documents(texts: Sequence[Text]) -> Iterator[Document]:
    """Give the texts as an index takes them."""
    for text in texts:
        yield Document(
            f"asterisk/common/texts/{text.source}", text.id, "", text.text, digest("", text.text)
        )


def indexing(index: Index, runtime: Runtime, texts: Sequence[Text]) -> Iterator[str]:
    """Put all texts into ``index``."""
    begun = time.perf_counter()
    index.update(documents(texts), runtime)
    took = time.perf_counter() - begun
    yield (
        f"Indexed {len(texts):,} texts in {took:.1f} s ({len(texts) / took:,.0f} a second): "
        "news, notes, questions, definitions, long and short."
    )


def asking(
    index: Index, runtime: Runtime, texts: Sequence[Text], queries: Sequence[str] = QUERIES
) -> Iterator[str]:
    """Answer each query by meaning and by words, and say which words a hit shares with it."""
    whole = {text.id: text.text for text in texts}
    for query in queries:
        yield f"? {query}"
        yield f"{BY_MEANING} {_told(index.search(query, 1, runtime, 'vectors'), query, whole)}"
        if index.words is not None and index.words.usable:
            yield f"{BY_WORDS} {_told(index.search(query, 1, None, 'words'), query, whole)}"


def _told(hits: Sequence[Hit], query: str, whole: Mapping[str, str]) -> str:
    if not hits:
        return "nothing"
    hit = hits[0]
    found = set(terms(whole[hit.key]))  # not the snippet alone: it may leave out what is shared
    common = [word for word in terms(query) if word in found]
    shared = f"shares: {', '.join(common)}" if common else "no word in common"
    near = "" if hit.similarity is None else f"{hit.similarity:.2f}, "
    return f"{_cut(hit.snippet)}  ({near}{shared})"


def timing(index: Index, runtime: Runtime, texts: Sequence[Text]) -> Shown:
    """Ask every question among ``texts``, from the text to ten hits with their snippets."""
    asked = [text.text for text in texts if text.kind == "question"]
    for text in asked[:5]:
        index.search(text, 10, runtime)
    samples = []
    for text in asked:
        begun = time.perf_counter_ns()
        index.search(text, 10, runtime)
        samples.append(time.perf_counter_ns() - begun)
    return Shown(tuple(samples), memory.snapshot())


def near_duplicates(runtime: Runtime, texts: Sequence[Text]) -> Iterator[str]:
    """Show what says the same twice."""
    begun = time.perf_counter()
    found = deduplicate([text.text for text in texts], runtime)
    took, count = time.perf_counter() - begun, len(found.clusters)
    yield (
        f"Near-duplicates among {found.rows:,} texts, cosine {found.threshold:g} and more: "
        f"{count} cluster{'' if count == 1 else 's'} in {took:.1f} s, embedding included."
    )
    for cluster in found.clusters:
        for member, similarity in zip(cluster.members, cluster.similarities, strict=True):
            mark = "*" if member == cluster.representative else f"{similarity:.2f}"
            yield f"   {mark:>4} {_cut(texts[member].text)}"


def sorting(runtime: Runtime, texts: Sequence[Text]) -> Iterator[str]:
    """Tell by its nearest mean vector which source a text is from; half the texts are examples."""
    counted: dict[str, int] = {}
    for text in texts:
        counted[text.source] = counted.get(text.source, 0) + 1
    labels = sorted(label for label, count in counted.items() if count >= FEWEST)
    some = [text for text in texts if text.source in labels]
    vectors = runtime.encode([text.text for text in some])
    true = np.array([labels.index(text.source) for text in some])
    known = np.arange(len(some)) % 2 == 0
    means = np.stack([vectors[known & (true == label)].mean(0) for label in range(len(labels))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    told = (vectors[~known] @ means.T).argmax(1)
    right = float((told == true[~known]).mean())
    usual = float(np.bincount(true[~known]).max() / (~known).sum())
    yield (
        f"Sorted {len(told)} texts into {len(labels)} sources by the nearest mean of "
        f"{int(known.sum())} others: {right:.0%} right (always the largest: {usual:.0%})."
    )


def summary(shown: Shown, database: Path) -> Iterator[str]:
    """Tell the times and the memory of the search."""
    found = summarise([shown.samples])
    told = [
        f"A query, text to hits:  median {found.p50:.2f} ms, p95 {found.p95:.2f} ms "
        f"({found.samples} queries, one thread)"
    ]
    occupied = {
        "PSS": shown.memory["pss"],
        "RSS": shown.memory["rss"],
        "peak RSS": shown.memory["peak"],
    }
    memories = [f"{name} {size / MB:.0f} MB" for name, size in occupied.items() if size is not None]
    told.append(f"This process:  {', '.join(memories) or 'memory unknown here'}")
    told.append(f"The index:  {database.stat().st_size / MB:.1f} MB, one SQLite file")
    yield from told


def _cut(text: str) -> str:
    line = printable(text)
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"
