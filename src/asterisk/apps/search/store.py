"""The rows of an index: its vectors in blocks, and the document of a passage."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from asterisk.apps.search.database import SLOTS
from asterisk.common.errors import InputError
from asterisk.common.vectors import to_int8
from asterisk.sources import Document

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.int8]

TOGETHER = 16  # blocks that are multiplied at once
CACHE = 32 << 20  # bytes of vectors that an index asked more than once keeps in memory
DAMAGED = "the index is damaged: a hit has no document; index again"


def state_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return what is another value after each change of the file, whoever makes it."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return version, connection.total_changes


class Blocks:
    """The vectors of one index, "int8" or "float32", in slots from 0 without a gap.

    An int8 row is scaled by its own largest element: more of the vector survives than under one
    scale for all, and a cosine does not see the scale.
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
            what = "its blocks of vectors have the wrong size"
            raise InputError(f"the index is damaged: {what}; index again")

    def stored(self, vectors: Floats) -> Rows:
        """Return unit vectors, float32 [n, d], as they are stored and compared."""
        return to_int8(vectors) if self.dtype == np.int8 else vectors.astype("<f4", copy=False)

    def scan(self, query: Floats) -> Floats:
        """Return the cosines of all rows with ``query``, float32 [d], by slot: float32 [n].

        Memory is that of TOGETHER blocks and 8 bytes a row, and from the second scan of an
        unchanged file on CACHE. An int8 query times int8 rows is summed exactly, whatever the
        order.
        """
        stored = self.stored(query[None])[0].astype(np.float32)
        length = np.sqrt(stored @ stored) or np.float32(1)
        state, room = state_of(self.connection), CACHE
        unchanged = state == self._state
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


def read_document(connection: sqlite3.Connection, passage: int) -> tuple[Document, int, int] | None:
    """Return a passage's document, and where the passage begins and ends in its text, or None."""
    row = connection.execute(
        "SELECT p.start, p.end, d.digest, s.path, d.key, d.title, d.text, d.date, d.author, "
        "d.tags FROM passages AS p JOIN documents AS d ON d.id = p.document "
        "JOIN sources AS s ON s.id = d.source WHERE p.id = ?",
        (passage,),
    ).fetchone()
    if row is None:
        return None
    start, end, digest, *texts = row
    if not isinstance(digest, bytes) or not all(isinstance(text, str) for text in texts):
        raise InputError(DAMAGED)
    source, key, title, text, date, author, stored = texts
    try:
        tags = json.loads(stored)
    except (ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InputError("the index is damaged: a document has no list of tags; index again")
    about = date, author, tuple(tags)
    return Document(source, key, title, text, digest.hex(), *about), start, end
