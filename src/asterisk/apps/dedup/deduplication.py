"""From texts to their near-duplicates, and what was found as a report, JSON or TSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from asterisk.apps.dedup.calibration import default_threshold
from asterisk.apps.dedup.clustering import (
    EXACT,
    NumbersOf,
    Progress,
    connect,
    no_progress,
    split,
)
from asterisk.apps.dedup.texts import (
    DIFFER,
    FIELDS,
    NUMBERS,
    Cluster,
    Copies,
    Record,
    Spool,
    collect,
    normalize,
    numbers,
    to_record,
)
from asterisk.apps.dedup.vectors import RowBuffer, Vectors
from asterisk.common.errors import UsageError, integer, one_of, strings
from asterisk.common.terminal import printable
from asterisk.common.vectors import to_int8

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

BLOCK = 1_024  # texts embedded at a time
FIRST_WORDS = 72  # characters
SHOWN = 10  # clusters, and members of each, in a report
COLUMNS = ("cluster", "representative", "similarity", "row", *FIELDS)

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES |= str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of two rows and more, largest first, those of equal size by their first rows."""

    threshold: float
    rows: int  # texts that were read
    empty: int  # of them, with nothing to compare
    exact: int  # that repeat an earlier one word for word
    clusters: tuple[Cluster, ...]
    complete: bool = True  # whether every pair was compared, and not only those within cells
    cut: int = 0  # texts of which the model read only the beginning

    @property
    def removed(self) -> int:
        """Rows that another one represents."""
        return sum(len(cluster.members) - 1 for cluster in self.clusters)

    def kept(self) -> list[int]:
        """Return the rows that stay, ascending: representatives, and all that is in no cluster."""
        members = {row for cluster in self.clusters for row in cluster.members}
        members -= {cluster.representative for cluster in self.clusters}
        return [row for row in range(self.rows) if row not in members]


def deduplicate(
    texts: Iterable[str],
    runtime: Runtime,
    *,
    threshold: float | None = None,
    threads: int = 1,
    numbers: str = DIFFER,
    prompt_name: str | None = None,
    progress: Progress = no_progress,
) -> Found:
    """Find the near-duplicates among ``texts``, numbered in their order.

    The members of a cluster have a cosine of ``threshold`` or more with its representative, as int8
    vectors (None: the model's own, see `default_threshold`), and with ``numbers`` "differ" (else
    "ignore") no numbers that contradict the representative's, see `contradict`. Texts wait in a
    temporary file. ``threads`` compare vectors; the runtime has its own. ``progress`` is called
    with the stage, how many are finished, and of how many. UsageError for a threshold outside 0 to
    1 or other ``numbers``; OutputError if the temporary files do not fit on the disk.
    """
    threshold = default_threshold(runtime.fingerprint) if threshold is None else threshold
    _check_threshold(threshold)
    one_of("numbers", numbers, NUMBERS)
    threads = integer("threads", threads, 1)
    with Spool() as spool:
        copies = collect(strings(texts, "texts must be a list of strings"), spool)
        before = runtime.truncated
        vectors = embed(copies, spool, runtime, prompt_name=prompt_name, progress=progress)
        cut = runtime.truncated - before
        of = numbers_of(copies, spool) if numbers == DIFFER else None
        return cluster(
            copies, vectors, threshold, threads=threads, numbers=of, progress=progress, cut=cut
        )


def embed(
    copies: Copies,
    spool: Spool,
    runtime: Runtime,
    *,
    prompt_name: str | None = None,
    progress: Progress = no_progress,
) -> Vectors:
    """Return the vectors of the distinct texts in their normal form.

    The model tells upper from lower case; for the same item in two feeds that is no difference.
    """
    rows, buffer = copies.distinct.tolist(), RowBuffer(np.int8)
    for start in range(0, len(rows), BLOCK):
        forms = [normalize(spool.text_of(spool[row])) for row in rows[start : start + BLOCK]]
        buffer.append(to_int8(runtime.encode(forms, prompt_name=prompt_name)))
        progress("embedded", start + len(forms), len(rows))
    return Vectors(buffer.finish(runtime.config.embedding_size), buffer.release)


def from_index(index: Any, spool: Spool) -> tuple[Copies, Vectors]:
    """Put an index's documents into ``spool``; return the vectors of the distinct ones as well.

    A document's vector is the mean of its passages'. ``index`` is an `asterisk.apps.search.Index`.
    """
    ids: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    buffer = RowBuffer(np.int8)
    for some, block in index.vectors():
        ids.append(np.array(some, np.int64))
        buffer.append(to_int8(np.ascontiguousarray(block, np.float32)))
    passages = Vectors(buffer.finish(index.dimension), buffer.release)
    numbers = np.concatenate(ids)
    order = np.argsort(numbers, kind="stable")  # a document's passages have successive numbers
    starts: list[int] = []

    def records() -> Iterator[Record]:
        last = None
        for position, number in enumerate(numbers[order].tolist()):
            document, _ = index.passage(number)
            if last != (document.source, document.key):
                last = document.source, document.key
                starts.append(position)
                yield to_record(document)

    copies, means = collect(records(), spool), RowBuffer(np.int8)
    ends = [*starts[1:], len(order)]
    for number in copies.distinct.tolist():
        rows = order[starts[number] : ends[number]]
        mean = passages.rows[rows]
        if len(rows) > 1:
            unit = mean / passages.lengths(rows)[:, None]
            mean = to_int8(unit.mean(axis=0, keepdims=True).astype(np.float32))
        means.append(mean)
    return copies, Vectors(means.finish(index.dimension), means.release)


def numbers_of(copies: Copies, spool: Spool) -> NumbersOf:
    """Return what gives the numbers in a distinct row's text, read from ``spool`` when asked."""
    return lambda row: numbers(spool.text_of(spool[int(copies.distinct[row])]))


def cluster(
    copies: Copies,
    vectors: Vectors,
    threshold: float,
    *,
    threads: int = 1,
    exact: int = EXACT,
    numbers: NumbersOf | None = None,
    progress: Progress = no_progress,
    cut: int = 0,
) -> Found:
    """Cluster the distinct rows of ``copies`` by their ``vectors``, and by ``numbers`` if given."""
    _check_threshold(threshold)
    groups = connect(vectors, threshold, threads=threads, exact=exact, progress=progress)
    clusters = copies.spread(split(groups, vectors, threshold, numbers))
    complete = len(vectors) <= exact
    return Found(threshold, copies.rows, copies.empty, copies.copies, clusters, complete, cut)


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise UsageError(f"a threshold must be more than 0 and at most 1, not {threshold}")


def write_found(
    found: Found, spool: Spool, format: str, file: TextIO, *, numbers: str, chosen: str = ""
) -> None:
    """Write ``found`` as "report", where ``chosen`` follows the threshold, as "json" or "tsv"."""
    formats = {
        "report": lambda: _report_lines(found, spool, chosen),
        "json": lambda: _json_lines(found, spool, numbers),
        "tsv": lambda: _tsv_lines(found, spool),
    }
    file.writelines(line + "\n" for line in formats[format]())


def _report_lines(found: Found, spool: Spool, chosen: str) -> Iterator[str]:
    """Yield counts, then the largest clusters with the members' cosines."""
    compared, stay = found.rows - found.exact - found.empty, found.rows - found.removed
    how = "" if found.complete else " within cells of their neighbours"
    share, exact = found.removed / max(1, found.rows), f"{found.exact:,} exact copies"
    texts, clusters = _count(found.rows, "text"), _count(len(found.clusters), "cluster")
    yield f"{texts}: {exact}, {found.empty:,} empty, {compared:,} compared{how}"
    yield f"threshold {found.threshold:.4g}{chosen}"
    if found.cut:
        yield f"{_count(found.cut, 'text')} longer than the model reads: compared by the beginning"
    yield f"{clusters}; {found.removed:,} texts ({share:.1%}) repeat another, {stay:,} stay"
    for number, cluster in enumerate(found.clusters[:SHOWN], 1):
        yield f"\ncluster {number}: {len(cluster.members):,} texts"
        yield f"  stays  {_record_line(spool[cluster.representative])}"
        pairs = zip(cluster.similarities, cluster.members, strict=True)
        others = [(cosine, row) for cosine, row in pairs if row != cluster.representative]
        for cosine, row in others[:SHOWN]:
            yield f"  {cosine:.3f}  {_record_line(spool[row])}"
        if len(others) > SHOWN:
            yield f"         and {len(others) - SHOWN:,} more"
    if len(found.clusters) > SHOWN:
        more = _count(len(found.clusters) - SHOWN, "more cluster")
        yield f"\n{more}; --format json or tsv has all"


def _json_lines(found: Found, spool: Spool, numbers: str) -> Iterator[str]:
    """Yield one JSON object, with a line for each cluster."""
    head = {
        "threshold": found.threshold,
        "texts": found.rows,
        "empty": found.empty,
        "exact": found.exact,
        "truncated": found.cut,
        "complete": found.complete,
        "removed": found.removed,
        "numbers": numbers,
    }
    yield json.dumps(head)[:-1] + ', "clusters": ['
    for number, cluster in enumerate(found.clusters, 1):
        members = [
            {"row": row, "similarity": round(cosine, 6), **_brief(spool[row])}
            for row, cosine in zip(cluster.members, cluster.similarities, strict=True)
        ]
        value = {"representative": cluster.representative, "members": members}
        yield json.dumps(value) + ("," if number < len(found.clusters) else "")
    yield "]}"


def _tsv_lines(found: Found, spool: Spool) -> Iterator[str]:
    """Yield a header and a line for each member."""
    yield "\t".join(COLUMNS)
    for number, cluster in enumerate(found.clusters, 1):
        for row, cosine in zip(cluster.members, cluster.similarities, strict=True):
            represents = int(row == cluster.representative)
            cells = _cells(_brief(spool[row]))
            yield f"{number}\t{represents}\t{cosine:.6f}\t{row}\t{cells}"


def write_kept(found: Found, spool: Spool, format: str, file: TextIO) -> None:
    """Write the records that stay, whole and in their order, as "jsonl" or "tsv"."""
    if format == "tsv":
        file.write("\t".join(FIELDS) + "\n")
    for record in map(spool.__getitem__, found.kept()):
        line = _cells(record) if format == "tsv" else json.dumps(record, ensure_ascii=False)
        file.write(line + "\n")


def _cells(record: Record) -> str:
    return "\t".join(map(escaped, record.values()))


def escaped(text: str) -> str:
    r"""Return ``text`` as a cell: ``\\``, ``\t``, ``\n``, ``\r``, other controls as ``\x1b``."""
    return text.translate(_ESCAPES)


def first_words(text: str, longest: int = FIRST_WORDS) -> str:
    """Return the beginning of ``text``, safe to print."""
    text = printable(text[: 4 * longest])
    if len(text) <= longest:
        return text
    end = text.rfind(" ", longest // 2, longest)
    return text[: end if end > 0 else longest - 1] + "…"


def _brief(record: Record) -> Record:
    return {**record, "text": first_words(record["text"])}


def _record_line(record: Record) -> str:
    key = f" [{printable(record['key'])[:40]}]" if record["key"] else ""
    return f"{first_words(record['title'] or record['text'])}  ({printable(record['source'])}{key})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
