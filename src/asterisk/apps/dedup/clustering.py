"""From vectors to clusters, by all pairs or by the pairs within cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from asterisk.apps.dedup.comparing import compare, shadows, true_pairs
from asterisk.apps.dedup.linking import Links
from asterisk.apps.dedup.numbers import NumbersOf, agreeing
from asterisk.apps.dedup.partition import cells, comparisons
from asterisk.apps.dedup.result import Cluster
from asterisk.apps.dedup.stars import stars
from asterisk.apps.dedup.vectors import CHUNK, Places, Vectors

EXACT = 200_000
"""Rows up to which every pair is compared; above it those within cells, see `partition`."""

RELEASED = 1_024  # groups after which pages are let go of

Told = Callable[[str, int, int], None]


def nothing(what: str, done: int, total: int) -> None:
    """Take progress and tell nobody."""


def clusters(
    vectors: Vectors,
    threshold: float,
    *,
    threads: int = 1,
    exact: int = EXACT,
    progress: Told = nothing,
    numbers: NumbersOf | None = None,
) -> list[Cluster]:
    """Return the clusters of two rows and more whose members reach ``threshold`` with one of them.

    In the order of their first rows. ``numbers`` gives those of a row, which then must not
    contradict those of the one that stands for it. Takes memory for the rows alone, however many
    pairs there are.
    """
    links = linked(vectors, threshold, threads=threads, exact=exact, progress=progress)
    return parted(links, vectors, threshold, numbers)


def parted(
    links: Links, vectors: Vectors, threshold: float, numbers: NumbersOf | None = None
) -> list[Cluster]:
    """Return the clusters that the groups of ``links`` fall into; see `stars` and `agreeing`."""
    found = []
    for number, group in enumerate(links.groups()):
        if number % RELEASED == 0:
            vectors.release()
        for rows, place in _stars(vectors, group, threshold, numbers):
            if len(rows) > 1:
                cosines = vectors.between(rows[place : place + 1], rows)[0]
                cosines[place] = 1.0
                found.append(
                    Cluster(int(rows[place]), tuple(rows.tolist()), tuple(cosines.tolist()))
                )
    return sorted(found, key=lambda cluster: cluster.members[0])


def _stars(
    vectors: Vectors, group: Places, threshold: float, numbers: NumbersOf | None
) -> Iterator[tuple[Places, int]]:
    for rows, place in stars(vectors, group, threshold):
        if numbers is None or len(rows) == 1:
            yield rows, place
        else:
            yield from agreeing(vectors, rows, place, threshold, numbers)


def linked(
    vectors: Vectors,
    threshold: float,
    *,
    threads: int = 1,
    exact: int = EXACT,
    progress: Told = nothing,
) -> Links:
    """Join all rows whose cosine is at least ``threshold``."""
    links = Links(len(vectors))

    def take(first: Places, second: Places) -> None:
        # What hangs together already need not be compared: in a crowd of near-duplicates that is
        # almost every pair.
        apart = links.apart(first, second)
        first, second = first[apart], second[apart]
        step = CHUNK
        while len(first):
            one, other, _ = true_pairs(vectors, threshold, first[:step], second[:step])
            links.join(one, other)
            first, second = first[step:], second[step:]
            apart = links.apart(first, second)
            first, second = first[apart], second[apart]

    held, shadow = shadows(vectors)
    parts = [None] if len(vectors) <= exact else [part for part in cells(shadow) if len(part) > 1]
    sizes = np.array([len(vectors) if part is None else len(part) for part in parts], np.int64)

    def release() -> None:
        held.release()
        vectors.release()

    total, seen = comparisons(sizes), 0

    def done(number: int) -> None:
        nonlocal seen
        seen += number
        progress("compared", min(seen, total), total)

    for part in parts:
        compare(
            shadow,
            threshold,
            take,
            threads=threads,
            done=done,
            order=part,
            names=links.names,
            release=release,
        )
    return links
