"""The rows of an index: its documents, passages and words, and its vectors in blocks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asterisk.apps.search.database import SLOTS
from asterisk.apps.search.passages import Passage
from asterisk.common.errors import InputError
from asterisk.common.vectors import to_int8
from asterisk.sources import Document

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.int8]

TOGETHER = 16  # blocks that are multiplied at once
CACHE = 32 << 20  # bytes of vectors that an index asked more than once keeps in memory


class Blocks:
    """The vectors of one index: ``dimension`` elements each, "int8" or "float32".

    Slots are 0 to n - 1. The row of a removed slot is replaced by the last one, so none is free.

    An int8 row is `to_int8` of its vector, scaled by its own largest element: more of the vector
    survives than under one scale for all, and a cosine does not see the scale.
    """

    def __init__(self, connection: sqlite3.Connection, dimension: int, precision: str) -> None:
        self.connection, self.dimension = connection, dimension
        self.dtype = np.dtype("i1" if precision == "int8" else "<f4")
        self._width = dimension * self.dtype.itemsize  # bytes of a row
        self._cached: list[Rows] = []
        self._norms: list[Floats] = []
        self._state: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise InputError where blocks and slots are not those of an index of this size."""
        blocks, last, wrong = self.connection.execute(
            "SELECT count(*), coalesce(max(id), -1), "
            "coalesce(sum(typeof(vectors) <> 'blob' OR length(vectors) <> ?), 0) FROM blocks",
            (SLOTS * self._width,),
        ).fetchone()
        passages, *slots = self.connection.execute(
            "SELECT count(*), coalesce(min(slot), 0), coalesce(max(slot) + 1, 0) FROM passages"
        ).fetchone()
        full = blocks == last + 1 == -(-passages // SLOTS)
        if wrong or not full or slots != [0, passages]:
            raise InputError(
                "the index is damaged: its blocks of vectors have the wrong size; index again"
            )

    def stored(self, vectors: Floats) -> Rows:
        """Return unit vectors, float32 [n, d], as they are stored and compared."""
        return to_int8(vectors) if self.dtype == np.int8 else vectors.astype("<f4", copy=False)

    def scan(self, query: Floats) -> Floats:
        """Return the cosines of all rows with ``query``, float32 [d], by slot: float32 [n].

        Memory is that of TOGETHER blocks and 8 bytes a row, and from the second scan of an
        unchanged file on CACHE for its first blocks. An int8 query times int8 rows is summed
        exactly: no sum of 1,024 products reaches the 24 bits of float32, whatever their order.
        """
        stored = self.stored(query[None])[0].astype(np.float32)
        length = np.sqrt(stored @ stored) or np.float32(1)
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        state = version, self.connection.total_changes
        unchanged, room = state == self._state, CACHE
        if not unchanged:
            self._state, self._norms, self._cached = state, [], []
        wide = np.empty((TOGETHER * SLOTS, self.dimension), np.float32)
        parts = [np.empty(0, np.float32)]
        for number, rows in enumerate(chain(self._cached[:], self._read(len(self._cached)))):
            room -= rows.nbytes
            if unchanged and room >= 0 and number == len(self._cached):
                self._cached.append(rows)
            part = wide[: len(rows)]
            np.copyto(part, rows, casting="unsafe")
            with np.errstate(invalid="ignore", over="ignore"):  # damaged or hostile floats
                dots = part @ stored
                if number == len(self._norms):
                    self._norms.append(_norms(part))
                parts.append(dots / (self._norms[number] * length))
        scores: Floats = np.concatenate(parts)[: self._count()]
        scores[~np.isfinite(scores)] = -1  # never anybody's nearest neighbour
        return scores

    def read(self) -> Iterator[tuple[Ids, Floats]]:
        """Yield passage ids, int64 [n], with their unit vectors, float32 [n, d], by slot."""
        step = TOGETHER * SLOTS
        for number, rows in enumerate(self._read()):
            found = self.connection.execute(
                "SELECT id FROM passages WHERE slot >= ? AND slot < ? ORDER BY slot",
                (number * step, number * step + step),
            )
            ids = np.array([row for (row,) in found], np.int64)
            wide = rows[: len(ids)].astype(np.float32)
            yield ids, wide / _norms(wide)[:, None]

    def append(self, vectors: Floats) -> int:
        """Add rows, float32 [n, d], behind the last one, and return the slot of the first."""
        first = self._count()
        self._write(first, self.stored(vectors))
        return first

    def delete(self, slots: Sequence[int]) -> None:
        """Remove rows whose passages are removed already; the last rows move into their slots."""
        count = max(self._count(), max(slots, default=-1) + 1) - len(slots)
        moving = self.connection.execute(
            "SELECT p.slot, v.vector FROM passages AS p JOIN vectors AS v ON v.passage = p.id "
            "WHERE p.slot >= ? ORDER BY p.slot",
            (count,),
        ).fetchall()
        free = sorted(slot for slot in slots if slot < count)
        if len(free) != len(moving):
            raise InputError("the index is damaged: its vectors have gaps; index again")
        for slot, (last, vector) in zip(free, moving, strict=True):
            self._write(slot, np.frombuffer(vector, self.dtype)[None])
            self.connection.execute("UPDATE passages SET slot = ? WHERE slot = ?", (slot, last))
        self.connection.execute("DELETE FROM blocks WHERE id >= ?", (-(-count // SLOTS),))

    def _count(self) -> int:
        query = "SELECT coalesce(max(slot) + 1, 0) FROM passages"
        return int(self.connection.execute(query).fetchone()[0])

    def _write(self, slot: int, rows: Rows) -> None:
        """Put ``rows`` into ``slot`` and those behind it, changing no other page of a block."""
        while len(rows):
            block, offset = divmod(slot, SLOTS)
            part = rows[: SLOTS - offset]
            self.connection.execute(
                "INSERT OR IGNORE INTO blocks VALUES (?, zeroblob(?))", (block, SLOTS * self._width)
            )
            with self.connection.blobopen("blocks", "vectors", block) as blob:
                blob.seek(offset * self._width)
                blob.write(part.tobytes())
            slot, rows = slot + len(part), rows[len(part) :]

    def _read(self, after: int = 0) -> Iterator[Rows]:
        """Yield the rows of TOGETHER blocks at a time, without the first ``after`` times."""
        cursor = self.connection.execute(
            "SELECT vectors FROM blocks WHERE id >= ? ORDER BY id", (TOGETHER * after,)
        )
        while blobs := cursor.fetchmany(TOGETHER):
            joined = b"".join(blob for (blob,) in blobs)
            yield np.frombuffer(joined, self.dtype).reshape(-1, self.dimension)


def _norms(rows: Floats) -> Floats:
    norms: Floats = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    return np.maximum(norms, np.float32(1e-30))


class NewDocument(NamedTuple):
    """A document to write: its source, the number that it had or 0, and its passages."""

    document: Document
    source: int
    number: int
    passages: list[Passage]


class StoredSource(NamedTuple):
    """What proves that a source has not changed, its content's kind, how many documents it has."""

    stamp: str
    kind: str
    documents: int


class Store:
    """The tables of one connection, written inside a caller's transaction; ``words``: FTS5 too."""

    def __init__(self, connection: sqlite3.Connection, blocks: Blocks, *, words: bool) -> None:
        self.connection, self.blocks, self.words = connection, blocks, words

    def sources(self) -> list[tuple[int, str]]:
        """Return number and path of all sources."""
        return self.connection.execute("SELECT id, path FROM sources ORDER BY id").fetchall()

    def find_source(self, path: str) -> StoredSource | None:
        """Return a source, None for one that the index does not have."""
        row = self.connection.execute(
            "SELECT stamp, kind, (SELECT count(*) FROM documents WHERE source = s.id) "
            "FROM sources AS s WHERE path = ?",
            (path,),
        ).fetchone()
        return row and StoredSource(str(row[0]), str(row[1]), int(row[2]))

    def add_source(self, path: str) -> int:
        """Return the number of a source, a new one unless it has one."""
        row = self.connection.execute(
            "INSERT INTO sources(path, stamp) VALUES (?, '') "
            "ON CONFLICT(path) DO UPDATE SET path = excluded.path RETURNING id",
            (path,),
        ).fetchall()
        return int(row[0][0])

    def set_stamp(self, source: int, stamp: str, kind: str | None) -> None:
        """Store the stamp of a source whose documents are all stored; None leaves the kind."""
        self.connection.execute(
            "UPDATE sources SET stamp = ?, kind = coalesce(?, kind) WHERE id = ?",
            (stamp, kind, source),
        )

    def remove_source(self, source: int) -> None:
        """Remove a source without documents."""
        self.connection.execute("DELETE FROM sources WHERE id = ?", (source,))

    def find(self, source: int, key: str) -> tuple[int, str] | None:
        """Return number and digest of a document, or None."""
        row = self.connection.execute(
            "SELECT id, digest FROM documents WHERE source = ? AND key = ?", (source, key)
        ).fetchone()
        return (row[0], row[1].hex()) if row else None

    def documents_of(self, source: int) -> list[int]:
        """Return the numbers of a source's documents."""
        rows = self.connection.execute("SELECT id FROM documents WHERE source = ?", (source,))
        return [number for (number,) in rows]

    def insert(self, documents: Sequence[NewDocument], vectors: Floats) -> list[int]:
        """Add documents with the vectors, float32 [n, d], of all their passages; return numbers."""
        if not documents:
            return []
        (last,) = self.connection.execute("SELECT coalesce(max(id), 0) FROM documents").fetchone()
        (passage,) = self.connection.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()
        slot = self.blocks.append(vectors)
        last = max(last, *(new.number for new in documents))
        numbers: list[int] = []
        rows: list[tuple[object, ...]] = []
        parts: list[tuple[int, ...]] = []
        texts: list[tuple[int, str]] = []
        for it, source, old, passages in documents:
            last += not old
            number = old or last
            numbers.append(number)
            text = it.key, it.title, bytes.fromhex(it.digest), passage + 1, len(passages), it.text
            about = it.date, it.author, json.dumps(it.tags, ensure_ascii=False)
            rows.append((number, source, *text, *about))
            for start, end in passages:
                passage += 1
                parts.append((passage, number, start, end, slot + len(parts)))
                texts.append((passage, _indexed_text(it.title, it.text[start:end])))
        run = self.connection.executemany
        run("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        run("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", parts)
        if self.words:
            run("INSERT INTO words(rowid, text) VALUES (?, ?)", texts)
        return numbers

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove documents with everything that belongs to them."""
        slots: list[tuple[int]] = []
        for number in numbers:
            row = self.connection.execute(
                "SELECT title, text, first, first + count - 1 FROM documents WHERE id = ?",
                (number,),
            ).fetchone()
            if row is None:
                continue
            title, text, *ids = row
            if self.words:
                # A table without contents has to be given what it held.
                spans = self.connection.execute(
                    "SELECT id, start, end FROM passages WHERE id BETWEEN ? AND ?", ids
                ).fetchall()
                self.connection.executemany(
                    "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)",
                    [(id, _indexed_text(title, text[start:end])) for id, start, end in spans],
                )
            slots += self.connection.execute(
                "DELETE FROM passages WHERE id BETWEEN ? AND ? RETURNING slot", ids
            ).fetchall()
            self.connection.execute("DELETE FROM documents WHERE id = ?", (number,))
        self.blocks.delete([int(slot) for (slot,) in slots])


def _indexed_text(title: str, text: str) -> str:
    """Return what is in the table of words for a passage: the title's words too."""
    return text if not title or text.startswith(title) else f"{title}\n{text}"


def read_tags(stored: object) -> tuple[str, ...]:
    """Return the tags of a document, stored as a JSON list; InputError for anything else."""
    try:
        tags = json.loads(stored) if isinstance(stored, str) else None
    except (ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InputError("the index is damaged: a document has no list of tags; index again")
    return tuple(tags)
