"""From texts to clusters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from asterisk.apps.dedup.calibration import default_threshold
from asterisk.apps.dedup.clustering import EXACT, Told, clusters, nothing
from asterisk.apps.dedup.collecting import Collected, Copies
from asterisk.apps.dedup.normal import normal
from asterisk.apps.dedup.numbers import DIFFER, NUMBERS, Numbers, NumbersOf
from asterisk.apps.dedup.numbers import numbers as numbers_in
from asterisk.apps.dedup.result import Found
from asterisk.apps.dedup.spool import Rows, Spool
from asterisk.apps.dedup.vectors import Vectors
from asterisk.common.errors import UsageError
from asterisk.common.validation import integer, one_of, strings
from asterisk.common.vectors import to_int8

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

BLOCK = 1_024  # texts embedded at a time


def deduplicate(
    texts: Iterable[str],
    runtime: Runtime,
    *,
    threshold: float | None = None,
    threads: int = 1,
    numbers: str = DIFFER,
    prompt_name: str | None = None,
    progress: Told = nothing,
) -> Found:
    """Find the near-duplicates among ``texts``, numbered as they come; see `Found`.

    Two texts are linked from a cosine of ``threshold`` on (of their vectors as int8; None is the
    runtime's own, see `asterisk.apps.dedup.calibration.default_threshold`), and a cluster
    is what reaches it with the cluster's representative; with ``numbers`` "differ" (else "ignore")
    their numbers must not contradict the representative's either, see `contradict`. The texts wait
    in a temporary file, so that a million of them need no more memory than their vectors.
    ``threads`` compare vectors; the runtime has its own. ``prompt_name`` names the model's prompt
    before each text, None its default one. ``progress`` is called with what is under
    way, how many are done, and of how many (0: unknown).

    UsageError for a threshold outside 0 to 1 or other ``numbers``; OutputError where the temporary
    files do not fit.
    """
    threshold = default_threshold(runtime.fingerprint) if threshold is None else threshold
    check(threshold)
    one_of("numbers", numbers, NUMBERS)
    threads = integer("threads", threads, 1)
    with Spool() as spool:
        collected = Collected(spool)
        for text in strings(texts, "texts must be a list of strings"):
            collected.append(text, text)
        copies = collected.finish()
        return near(
            copies,
            spool,
            runtime,
            threshold,
            threads=threads,
            numbers=numbers,
            prompt_name=prompt_name,
            progress=progress,
        )


def near(
    copies: Copies,
    spool: Spool,
    runtime: Runtime,
    threshold: float,
    *,
    text_of: Callable[[Any], str] = str,
    threads: int = 1,
    numbers: str = DIFFER,
    prompt_name: str | None = None,
    progress: Told = nothing,
) -> Found:
    """Embed what is distinct among ``copies`` and cluster it; ``text_of`` a value of ``spool``."""
    before = runtime.truncated
    vectors = embedded(copies, spool, runtime, text_of, prompt_name=prompt_name, progress=progress)
    cut = runtime.truncated - before
    of = numbers_of(copies, spool, text_of) if numbers == DIFFER else None
    return clustered(
        copies, vectors, threshold, threads=threads, numbers=of, progress=progress, cut=cut
    )


def numbers_of(
    copies: Copies, spool: Spool, text_of: Callable[[Any], str] = str
) -> Callable[[int], Numbers]:
    """Return what gives the numbers of a distinct row, read from ``spool`` when asked."""
    return lambda row: numbers_in(text_of(spool[int(copies.distinct[row])]))


def embedded(
    copies: Copies,
    spool: Spool,
    runtime: Runtime,
    text_of: Callable[[Any], str] = str,
    *,
    prompt_name: str | None = None,
    progress: Told = nothing,
) -> Vectors:
    """Return the vectors of the distinct texts in their normal form.

    The model tells upper from lower case; for the same item in two feeds that is no difference.
    """
    rows, done = Rows(np.int8), 0
    numbers = iter(copies.distinct.tolist())
    while block := list(itertools.islice(numbers, BLOCK)):
        forms = [normal(text_of(spool[number])) for number in block]
        rows.append(to_int8(runtime.encode(forms, prompt_name=prompt_name)))
        done += len(block)
        progress("embedded", done, len(copies.distinct))
    return Vectors(rows.finish(runtime.config.embedding_size), rows.release)


def clustered(
    copies: Copies,
    vectors: Vectors,
    threshold: float,
    *,
    threads: int = 1,
    exact: int = EXACT,
    numbers: NumbersOf | None = None,
    progress: Told = nothing,
    cut: int = 0,
) -> Found:
    """Cluster the distinct rows of ``copies`` by their ``vectors``, and by ``numbers`` if given."""
    check(threshold)
    found = clusters(
        vectors, threshold, threads=threads, exact=exact, progress=progress, numbers=numbers
    )
    return Found(
        threshold,
        copies.rows,
        copies.empty,
        copies.copies,
        copies.spread(found),
        len(vectors) <= exact,
        cut,
    )


def check(threshold: float) -> None:
    """Raise UsageError unless ``threshold`` is a cosine above 0."""
    if not 0 < threshold <= 1:
        raise UsageError(f"a threshold must be more than 0 and at most 1, not {threshold}")
