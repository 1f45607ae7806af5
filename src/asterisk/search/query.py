"""One query: two rankings of documents by their best passages, as one list of hits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asterisk.errors import InputError
from asterisk.search.blocks import Blocks, top
from asterisk.search.fusion import fused
from asterisk.search.hit import Hit
from asterisk.search.snippets import snippet
from asterisk.search.words import Words, terms

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

DEPTH = 60  # documents of each ranking that are fused
MOST_KNN = 4_096  # vec0's largest k
_SLICE = 500  # ids a statement
Ranked = dict[int, tuple[int, float]]  # document -> its best passage and that one's score


class Query:
    """A query's work on one connection; ``words`` is None where there are none."""

    def __init__(
        self, connection: sqlite3.Connection, blocks: Blocks, words: Words | None, engine: str
    ) -> None:
        self.connection, self.blocks, self.words = connection, blocks, words
        self._engine = engine

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
        near: Ranked = {}
        told: Ranked = {}
        if runtime is not None and mode != "words":
            near = self._near(runtime.encode_query(text, prompt_name=prompt_name), depth)
        if self.words is not None and mode != "vectors":
            told = self._told(text, depth)
        if mode == "vectors":
            ranking = [(document, score) for document, (_, score) in near.items()]
        elif mode == "words":
            ranking = [(document, score) for document, (_, score) in told.items()]
        else:
            ranking = fused([list(near), list(told)])
        wanted = frozenset(terms(text))
        return [
            self._hit(document, score, near.get(document), told.get(document), wanted)
            for document, score in ranking[:k]
        ]

    def _near(self, vector: npt.NDArray[np.float32], depth: int) -> Ranked:
        if self._engine == "sqlite-vec":
            return self._by_extension(vector, depth)
        ids, scores = self.blocks.scan(vector)
        count = depth + depth // 4
        while True:
            ranked = self._by_document(top(ids, scores, count))
            if len(ranked) >= depth or count >= len(ids):
                return _first(ranked, depth)
            count *= 4

    def _by_extension(self, vector: npt.NDArray[np.float32], depth: int) -> Ranked:
        query = self.blocks.stored(vector[None])[0]
        typed = "vec_int8(?)" if query.dtype == np.int8 else "?"
        count = min(depth + depth // 4, MOST_KNN)
        while True:
            rows = self.connection.execute(
                f"SELECT rowid, 1 - distance FROM vectors WHERE embedding MATCH {typed} AND k = ?",  # noqa: S608
                (query.tobytes(), count),
            ).fetchall()
            rows.sort(key=lambda row: (-row[1], row[0]))
            ranked = self._by_document(rows)
            if len(ranked) >= depth or len(rows) < count:
                return _first(ranked, depth)
            if count == MOST_KNN:
                # A few long documents hold all the places that vec0 gives: the scan has no limit.
                ids, scores = self.blocks.scan(vector)
                return _first(self._by_document(top(ids, scores, len(ids))), depth)
            count = min(4 * count, MOST_KNN)

    def _told(self, text: str, depth: int) -> Ranked:
        assert self.words is not None  # noqa: S101 - the caller has looked
        count = depth + depth // 4
        while True:
            rows = self.words.search(text, count)
            ranked = self._by_document(rows)
            if len(ranked) >= depth or len(rows) < count:
                return _first(ranked, depth)
            count *= 4

    def _by_document(self, rows: Sequence[tuple[int, float]]) -> Ranked:
        owners: dict[int, int] = {}
        for start in range(0, len(rows), _SLICE):
            part = [row for row, _ in rows[start : start + _SLICE]]
            marks = ",".join("?" * len(part))
            owners.update(
                self.connection.execute(
                    f"SELECT id, document FROM passages WHERE id IN ({marks})",  # noqa: S608
                    part,
                )
            )
        ranked: Ranked = {}
        for passage, score in rows:
            document = owners.get(passage)
            if document is not None and document not in ranked:
                ranked[document] = passage, score
        return ranked

    def _hit(
        self,
        document: int,
        score: float,
        near: tuple[int, float] | None,
        told: tuple[int, float] | None,
        wanted: frozenset[str],
    ) -> Hit:
        passage = (near or told or (0, 0.0))[0]
        row = self.connection.execute(
            "SELECT s.path, d.key, d.title, d.text, p.start, p.end FROM documents AS d "
            "JOIN sources AS s ON s.id = d.source JOIN passages AS p ON p.id = ? WHERE d.id = ?",
            (passage, document),
        ).fetchone()
        if row is None or not all(isinstance(value, str) for value in row[:4]):
            raise InputError("the index is damaged: a hit has no document; index again")
        source, key, title, text, start, end = row
        return Hit(
            document,
            title,
            score,
            snippet(text[start:end], wanted),
            source,
            key,
            near[1] if near else None,
            start,
            end,
        )


def _first(ranked: Ranked, count: int) -> Ranked:
    return dict(list(ranked.items())[:count])
