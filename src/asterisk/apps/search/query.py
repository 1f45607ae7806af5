"""One query: two rankings of documents by their best passages, as one list of hits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asterisk.apps.search.blocks import Blocks, top
from asterisk.apps.search.fusion import fused
from asterisk.apps.search.hit import Hit
from asterisk.apps.search.snippets import snippet
from asterisk.apps.search.store import read_tags
from asterisk.apps.search.words import Words, terms
from asterisk.common.errors import InputError

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

DEPTH = 60  # documents of each ranking that are fused
_SLICE = 500  # ids a statement
Ranked = dict[int, tuple[int, float]]  # document -> its best passage and that one's score


class Query:
    """A query's work on one connection; ``words`` is None where there are none."""

    def __init__(self, connection: sqlite3.Connection, blocks: Blocks, words: Words | None) -> None:
        self.connection, self.blocks, self.words = connection, blocks, words

    def run(
        self, text: str, k: int, runtime: Runtime | None, mode: str, prompt_name: str | None = None
    ) -> list[Hit]:
        """Return the ``k`` best hits; see `Index.search`."""
        self.connection.execute("BEGIN")  # one state of the file for all that follows
        try:
            return self._run(text, k, runtime, mode, prompt_name)
        finally:
            self.connection.execute("ROLLBACK")

    def _run(
        self, text: str, k: int, runtime: Runtime | None, mode: str, prompt_name: str | None
    ) -> list[Hit]:
        depth = k if mode != "hybrid" else max(k, DEPTH)
        nearest: Ranked = {}
        worded: Ranked = {}
        if runtime is not None and mode != "words":
            nearest = self._by_vector(runtime.encode_query(text, prompt_name=prompt_name), depth)
        if self.words is not None and mode != "vectors":
            worded = self._by_words(text, depth)
        if mode == "vectors":
            ranking = [(document, score) for document, (_, score) in nearest.items()]
        elif mode == "words":
            ranking = [(document, score) for document, (_, score) in worded.items()]
        else:
            ranking = fused([list(nearest), list(worded)])
        wanted = frozenset(terms(text))
        return [
            self._hit(document, score, nearest.get(document), worded.get(document), wanted)
            for document, score in ranking[:k]
        ]

    def _by_vector(self, vector: npt.NDArray[np.float32], depth: int) -> Ranked:
        scores = self.blocks.scan(vector)
        count = depth + depth // 4
        while True:
            ranked = self._by_document(top(scores, count), "slot")
            if len(ranked) >= depth or count >= len(scores):
                return _first(ranked, depth)
            count *= 4

    def _by_words(self, text: str, depth: int) -> Ranked:
        assert self.words is not None  # noqa: S101 - the caller has looked
        count = depth + depth // 4
        while True:
            rows = self.words.search(text, count)
            ranked = self._by_document(rows, "id")
            if len(ranked) >= depth or len(rows) < count:
                return _first(ranked, depth)
            count *= 4

    def _by_document(self, rows: Sequence[tuple[int, float]], column: str) -> Ranked:
        """Return the best of ``rows``, (id or slot of a passage, score), of each document."""
        owners: dict[int, tuple[int, int]] = {}
        for start in range(0, len(rows), _SLICE):
            part = [row for row, _ in rows[start : start + _SLICE]]
            marks = ",".join("?" * len(part))
            found = self.connection.execute(
                f"SELECT {column}, id, document FROM passages WHERE {column} IN ({marks})",  # noqa: S608
                part,
            )
            owners.update((row, (passage, document)) for row, passage, document in found)
        ranked: Ranked = {}
        for row, score in rows:
            if row in owners:
                passage, document = owners[row]
                ranked.setdefault(document, (passage, score))
        return ranked

    def _hit(
        self,
        document: int,
        score: float,
        nearest: tuple[int, float] | None,
        worded: tuple[int, float] | None,
        wanted: frozenset[str],
    ) -> Hit:
        passage = (nearest or worded or (0, 0.0))[0]
        row = self.connection.execute(
            "SELECT s.path, d.key, d.title, d.text, d.date, d.author, d.tags, p.start, p.end "
            "FROM documents AS d JOIN sources AS s ON s.id = d.source "
            "JOIN passages AS p ON p.id = ? WHERE d.id = ?",
            (passage, document),
        ).fetchone()
        if row is None or not all(isinstance(value, str) for value in row[:7]):
            raise InputError("the index is damaged: a hit has no document; index again")
        source, key, title, text, date, author, tags, start, end = row
        return Hit(
            document,
            title,
            score,
            snippet(text[start:end], wanted),
            source,
            key,
            nearest[1] if nearest else None,
            start,
            end,
            date,
            author,
            read_tags(tags),
        )


def _first(ranked: Ranked, count: int) -> Ranked:
    return dict(list(ranked.items())[:count])
