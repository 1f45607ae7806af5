"""From texts to their near-duplicates, and what was found as a report, JSON or TSV."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

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
    Collector,
    Copies,
    Record,
    Spool,
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
    from asterisk.sources import Document

BLOCK = 1_024  # texts embedded at a time
FIRST_WORDS = 72  # characters
SHOWN = 10  # clusters, and members of each, in a report
COLUMNS = ("cluster", "representative", "similarity", "row", *FIELDS)

_CONTROLS = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of two rows and more, largest first, those of equal size by their first rows.

    ``rows`` texts were read, of which ``empty`` had nothing to compare and ``exact`` repeated an
    earlier one word for word. ``complete`` tells whether every pair was compared (else those that
    share a cell of a partition), and ``cut`` how many texts the model read only the beginning of.
    """

    threshold: float
    rows: int
    empty: int
    exact: int
    clusters: tuple[Cluster, ...]
    complete: bool = True
    cut: int = 0

    @property
    def removed(self) -> int:
        """Rows that another one represents."""
        return sum(len(cluster.members) - 1 for cluster in self.clusters)

    def kept(self) -> list[int]:
        """Return the rows that stay, ascending: representatives, and all that is in no cluster."""
        members = {row for cluster in self.clusters for row in cluster.members}
        members -= {cluster.representative for cluster in self.clusters}
        return [row for row in range(self.rows) if row not in members]


class PassageIndex(Protocol):
    """What `asterisk.apps.search.Index` gives of its documents' passages."""

    @property
    def dimension(self) -> int:
        """The size of a vector."""

    def vectors(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Yield numbers of passages and their vectors, [passages, dimension], in blocks."""

    def passage(self, number: int, /) -> tuple[Document, Any]:
        """Return the document that a passage is part of, and the passage."""


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
    """Find the near-duplicates among ``texts``, numbered in their order; see `Found`.

    The members of a cluster have a cosine of ``threshold`` or more with its representative, as int8
    vectors (None: the model's own, see `default_threshold`), and with ``numbers`` "differ" (else
    "ignore") no numbers that contradict the representative's, see `contradict`. Texts wait in a
    temporary file, so that a million of them need no more memory than their vectors. ``threads``
    compare vectors; the runtime has its own. ``prompt_name`` names the model's prompt before each
    text, None its default one. ``progress`` is called with the stage, how many are finished, and
    of how many.

    UsageError for a threshold outside 0 to 1 or other ``numbers``; OutputError if the temporary
    files do not fit on the disk.
    """
    threshold = default_threshold(runtime.fingerprint) if threshold is None else threshold
    _check_threshold(threshold)
    one_of("numbers", numbers, NUMBERS)
    threads = integer("threads", threads, 1)
    with Spool() as spool:
        collector = Collector(spool)
        for text in strings(texts, "texts must be a list of strings"):
            collector.append(text, text)
        copies, before = collector.finish(), runtime.truncated
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
    buffer, finished = RowBuffer(np.int8), 0
    rows = iter(copies.distinct.tolist())
    while block := list(itertools.islice(rows, BLOCK)):
        forms = [normalize(spool.text_of(spool[row])) for row in block]
        buffer.append(to_int8(runtime.encode(forms, prompt_name=prompt_name)))
        finished += len(block)
        progress("embedded", finished, len(copies.distinct))
    return Vectors(buffer.finish(runtime.config.embedding_size), buffer.release)


def from_index(index: PassageIndex, spool: Spool) -> tuple[Copies, Vectors]:
    """Put an index's documents into ``spool``; return the vectors of the distinct ones as well.

    A document's vector is the mean of its passages'.
    """
    ids: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    buffer = RowBuffer(np.int8)
    for some, block in index.vectors():
        ids.append(np.array(some, np.int64))
        buffer.append(to_int8(np.ascontiguousarray(block, np.float32)))
    passages = Vectors(buffer.finish(index.dimension), buffer.release)
    numbers = np.concatenate(ids)
    order = np.argsort(numbers, kind="stable")  # a document's passages have successive numbers
    collector, starts, last = Collector(spool), list[int](), None
    for position, row in enumerate(order):
        document, _ = index.passage(int(numbers[row]))
        if last != (document.source, document.key):
            last = document.source, document.key
            record = to_record(document)
            collector.append(record, spool.text_of(record))
            starts.append(position)
    copies, ends = collector.finish(), [*starts[1:], len(order)]
    means = RowBuffer(np.int8)
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
    return Found(
        threshold, copies.rows, copies.empty, copies.copies, clusters, complete=complete, cut=cut
    )


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise UsageError(f"a threshold must be more than 0 and at most 1, not {threshold}")


def write_found(
    found: Found,
    spool: Spool,
    format: str,
    file: TextIO,
    *,
    numbers: str,
    chosen: str = "",
) -> None:
    """Write ``found`` as "report", where ``chosen`` follows the threshold, as "json" or "tsv"."""
    if format == "report":
        lines = _report_lines(found, spool, chosen)
    elif format == "json":
        lines = _json_lines(found, spool, numbers)
    else:
        lines = _tsv_lines(found, spool)
    for line in lines:
        file.write(line + "\n")


def _report_lines(found: Found, spool: Spool, chosen: str) -> Iterator[str]:
    """Yield counts, then the largest clusters with the members' cosines."""
    yield (
        f"{_count(found.rows, 'text')}: {found.exact:,} exact copies, {found.empty:,} empty, "
        f"{found.rows - found.exact - found.empty:,} compared"
        + ("" if found.complete else " within cells of their neighbours")
    )
    yield f"threshold {found.threshold:.4g}{chosen}"
    if found.cut:
        yield f"{_count(found.cut, 'text')} longer than the model reads: compared by the beginning"
    yield (
        f"{_count(len(found.clusters), 'cluster')}; {found.removed:,} texts "
        f"({found.removed / max(1, found.rows):.1%}) repeat another, "
        f"{found.rows - found.removed:,} stay"
    )
    for number, cluster in enumerate(found.clusters[:SHOWN], 1):
        yield f"\ncluster {number}: {len(cluster.members):,} texts"
        yield f"  stays  {_record_line(spool[cluster.representative])}"
        others = [
            (cosine, row)
            for cosine, row in zip(cluster.similarities, cluster.members, strict=True)
            if row != cluster.representative
        ]
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
    """Yield a header and a line for each member, in cells that `escaped` made."""
    yield "\t".join(COLUMNS)
    for number, cluster in enumerate(found.clusters, 1):
        for row, cosine in zip(cluster.members, cluster.similarities, strict=True):
            represents = str(int(row == cluster.representative))
            cells = [str(number), represents, f"{cosine:.6f}", str(row)]
            cells += [escaped(value) for value in _brief(spool[row]).values()]
            yield "\t".join(cells)


def write_kept(found: Found, spool: Spool, format: str, file: TextIO) -> None:
    """Write the records that stay, whole and in their order, as "jsonl" or "tsv"."""
    if format == "tsv":
        file.write("\t".join(FIELDS) + "\n")
    for row in found.kept():
        record = spool[row]
        if format == "tsv":
            file.write("\t".join(escaped(record[name]) for name in FIELDS) + "\n")
        else:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def escaped(text: str) -> str:
    r"""Return ``text`` as a cell: ``\\``, ``\t``, ``\n``, ``\r``, other controls as ``\x1b``."""
    if text.isprintable() and "\\" not in text:
        return text
    return _CONTROLS.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


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
