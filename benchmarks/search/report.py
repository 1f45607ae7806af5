"""What a run says: one table of queries, one of indexing, and the bars it has to clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from asterisk.bench.statistics import summarise
from benchmarks.search.run import BRUTE, SCAN

MB = 1e6
NONE = "–"
SMALL, LARGE = 5_000, 100_000  # passages that the bars speak of
SHARE = 0.1  # how far from that a corpus may be: some texts are two passages
HEADS = (
    "passages",
    "vectors",
    "compared by",
    "mode",
    "p50",
    "p95",
    "CPU p50",
    "CPU p95",
    "first hit",
    "PSS",
    "file",
)
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """Something to reach; ``found`` is None where this run cannot tell."""

    what: str
    bound: float
    unit: str
    found: float | None
    least: bool = False

    @property
    def verdict(self) -> str:
        """Reached, missed or not measured."""
        if self.found is None:
            return "not measured"
        reached = self.found >= self.bound if self.least else self.found <= self.bound
        return "reached" if reached else "missed"


def bars(report: Report) -> list[Bar]:
    """Return what the search has to reach: int8 vectors, this package's scan, hybrid ranking."""
    small, large = _usual(report, SMALL), _usual(report, LARGE)
    rates = {rate["threads"]: median(rate["indexed_per_s"]) for rate in report["rates"]}
    return [
        Bar(f"query over {SMALL:,}, p95", 5, "ms", _p95(small)),
        Bar(f"query over {LARGE:,}, p95", 50, "ms", _p95(large)),
        Bar("indexing, two threads", 2_000, "texts/s", rates.get(2), least=True),
        Bar(f"PSS at {LARGE:,}", 110, "MB", _pss(large)),
    ]


def markdown(report: Report) -> str:
    """Return the report as people read it."""
    return "\n".join([*_head(report), *_queries(report), *_indexing(report), *_end(report)]) + "\n"


def _head(report: Report) -> Iterator[str]:
    settings, machine = report["settings"], report["machine"]
    yield "# Search benchmark"
    yield ""
    yield (
        f"Artifact {settings['artifact']}, the {settings['hits']} best, one thread, "
        f"{settings['processes']} processes a row, in turns. {machine.get('cpu', '')} "
        f"({machine['cores']} cores), Python {machine['python']}."
    )
    yield ""
    for name, corpus in report["corpora"].items():
        yield (
            f"- {name}: {corpus['texts']:,} texts of {corpus['characters_mean']:.0f} characters, "
            f"{corpus['queries']} queries; {corpus['from']}"
        )
    yield ""
    yield from _table(
        ("what", "bar", "found", ""),
        (
            (
                bar.what,
                f"{'≥' if bar.least else '≤'} {bar.bound:,.0f} {bar.unit}",
                NONE if bar.found is None else f"{bar.found:,.1f} {bar.unit}",
                bar.verdict,
            )
            for bar in bars(report)
        ),
    )
    yield ""


def _queries(report: Report) -> Iterator[str]:
    yield "## A query, end to end"
    yield ""
    yield (
        "From the text to ten hits with their snippets: embedding, ranking, reading. In memory: "
        "a float32 matrix, one product and a partial sort, and no documents to read. CPU is the "
        "process's own time, which a busy machine hardly changes. The first hit counts from the "
        "start of the process. PSS at the end, all modes used."
    )
    yield ""
    rows = []
    for cell in report["cells"]:
        processes = cell["processes"]
        index = report["indexes"][cell["corpus"]].get(cell["precision"], {})
        size = "" if cell["engine"] == BRUTE else f"{index['bytes'] / MB:.1f} MB"
        first = median(one["first_ns"] for one in processes) / 1e6
        for mode in processes[0]["samples"]:
            found = summarise([one["samples"][mode] for one in processes])
            cpu = summarise([one["cpu"][mode] for one in processes])
            rows.append(
                (
                    f"{_passages(report, cell):,}",
                    cell["precision"],
                    cell["engine"],
                    mode,
                    f"{found.p50:.2f} ms",
                    f"{found.p95:.2f} ms",
                    f"{cpu.p50:.2f} ms",
                    f"{cpu.p95:.2f} ms",
                    f"{first:.0f} ms",
                    f"{_pss(cell) or 0:.1f} MB",
                    size or NONE,
                )
            )
    yield from _table(HEADS, rows)
    yield ""


def _indexing(report: Report) -> Iterator[str]:
    yield "## Indexing"
    yield ""
    yield (
        "Into a new file, opening the artifact left out; beside it, embedding the same texts and "
        "doing nothing with the vectors."
    )
    yield ""
    rows = [
        (
            str(rate["threads"]),
            f"{rate['texts']:,} of {rate['tokens_mean']:.0f} tokens",
            f"{median(rate['indexed_per_s']):,.0f} a second",
            f"{median(rate['embedded_per_s']):,.0f} a second",
            f"{median(rate['cpu_ns']) / 1e6:.2f} ms a text",
            f"{rate['peak'] / MB:.0f} MB",
        )
        for rate in report["rates"]
    ]
    heads = ("threads", "texts", "indexed", "embedded alone", "CPU, indexing", "peak RSS")
    yield from _table(heads, rows)
    yield ""


def _end(report: Report) -> Iterator[str]:
    shared = sorted({name for cell in report["cells"] for one in cell["processes"]
                     for name in one["shared"]})  # fmt: skip
    for line in report["warnings"]:
        yield f"- {line}"
    if shared:
        yield f"- other processes mapped {', '.join(shared)} too, which lowers PSS"
    for name, line in report["failed"].items():
        yield f"- failed: {name}: {line}"


def _usual(report: Report, passages: int) -> Mapping[str, Any] | None:
    for cell in report["cells"]:
        near = abs(_passages(report, cell) - passages) <= SHARE * passages
        if near and (cell["precision"], cell["engine"]) == ("int8", SCAN):
            found: Mapping[str, Any] = cell
            return found
    return None


def _passages(report: Report, cell: Mapping[str, Any]) -> int:
    indexes = report["indexes"][cell["corpus"]]
    return int(next(iter(indexes.values()))["passages"])


def _p95(cell: Mapping[str, Any] | None) -> float | None:
    if cell is None:
        return None
    return summarise([one["samples"]["hybrid"] for one in cell["processes"]]).p95


def _pss(cell: Mapping[str, Any] | None) -> float | None:
    if cell is None:
        return None
    found = [one["memory"]["pss"] for one in cell["processes"]]
    return None if None in found else max(found) / MB


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
