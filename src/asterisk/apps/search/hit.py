"""What a search finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """One document, by its best passage.

    ``document`` is its number in the index, ``source`` and ``key`` say where it came from (as
    `asterisk.sources.Document` has them). ``score`` is what the hits are ordered by, highest first:
    a cosine in mode "vectors", BM25 in mode "words", the reciprocal rank fusion in mode "hybrid".
    ``similarity`` is the best passage's cosine with the query, None where only words found it.
    ``start`` and ``end`` are that passage's place in the document's text, in characters. ``date``,
    ``author`` and ``tags`` are the document's, empty where it has none.
    """

    document: int
    title: str
    score: float
    snippet: str
    source: str
    key: str
    similarity: float | None = None
    start: int = 0
    end: int = 0
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()
