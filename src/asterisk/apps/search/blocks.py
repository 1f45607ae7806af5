"""Vectors in blocks of `schema.SLOTS` rows, each one BLOB, scanned by NumPy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from asterisk.apps.search.schema import SLOTS
from asterisk.common.errors import InputError
from asterisk.common.vectors import to_int8

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.int8]

TOGETHER = 16  # blocks that are multiplied at once
KEPT = 32 << 20  # bytes of vectors that an index asked more than once keeps in memory


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
        self._kept: list[Rows] = []
        self._lengths: list[Scores] = []
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

    def stored(self, vectors: npt.NDArray[np.float32]) -> Rows:
        """Return unit vectors, float32 [n, d], as they are stored and compared."""
        return to_int8(vectors) if self.dtype == np.int8 else vectors.astype("<f4", copy=False)

    def scan(self, query: npt.NDArray[np.float32]) -> Scores:
        """Return the cosines of all rows with ``query``, float32 [d], by slot: float32 [n].

        Memory is that of TOGETHER blocks and 8 bytes a row, and from the second scan of an
        unchanged file on KEPT for its first blocks. An int8 query times int8 rows is summed
        exactly: no sum of 1,024 products reaches the 24 bits of float32, whatever their order.
        """
        wanted = self.stored(query[None])[0].astype(np.float32)
        length = np.sqrt(wanted @ wanted) or np.float32(1)
        keep, room = self._unchanged(), KEPT
        wide = np.empty((TOGETHER * SLOTS, self.dimension), np.float32)
        found = []
        for number, rows in enumerate(chain(self._kept[:], self._read(len(self._kept)))):
            room -= rows.nbytes
            if keep and room >= 0 and number == len(self._kept):
                self._kept.append(rows)
            part = wide[: len(rows)]
            np.copyto(part, rows, casting="unsafe")
            with np.errstate(invalid="ignore", over="ignore"):  # damaged or hostile floats
                dots = part @ wanted
                if number == len(self._lengths):
                    squares = np.einsum("nd,nd->n", part, part)
                    self._lengths.append(np.maximum(np.sqrt(squares), np.float32(1e-30)))
                found.append(dots / (self._lengths[number] * length))
        scores: Scores = np.concatenate([np.empty(0, np.float32), *found])[: self._count()]
        scores[~np.isfinite(scores)] = -1  # never anybody's nearest neighbour
        return scores

    def read(self) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        """Yield passage ids, int64 [n], with their unit vectors, float32 [n, d], by slot."""
        step = TOGETHER * SLOTS
        for number, rows in enumerate(self._read()):
            found = self.connection.execute(
                "SELECT id FROM passages WHERE slot >= ? AND slot < ? ORDER BY slot",
                (number * step, number * step + step),
            )
            ids = np.array([row for (row,) in found], np.int64)
            wide = rows[: len(ids)].astype(np.float32)
            lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
            yield ids, wide / np.maximum(lengths, np.float32(1e-30))

    def append(self, vectors: npt.NDArray[np.float32]) -> int:
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
                "INSERT OR IGNORE INTO blocks VALUES (?, zeroblob(?))",
                (block, SLOTS * self._width),
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

    def _unchanged(self) -> bool:
        """Tell whether the file is as at the last scan; else forget what was learnt from it."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        state = version, self.connection.total_changes
        if state == self._state:
            return True
        self._state, self._lengths, self._kept = state, [], []
        return False


def top(scores: Scores, count: int) -> list[tuple[int, float]]:
    """Return the ``count`` best (slot, score), best first, the smaller slot first among equals."""
    slots = np.arange(len(scores))
    if count < len(scores):
        slots = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    order = slots[np.lexsort((slots, -scores[slots]))][:count]
    return list(zip(order.tolist(), scores[order].tolist(), strict=True))
