"""Vectors in the layout of sqlite-vec's vec0 tables, written and scanned without it.

A chunk is CHUNK slots: a bit each that says whether it is taken (lowest bit first), a rowid each as
int64, and a vector each, all little endian. ``vectors_rowids`` tells where a row stands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from asterisk.errors import InputError
from asterisk.search.schema import CHUNK
from asterisk.vectors import to_int8

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32] | npt.NDArray[np.int8]
_Chunk = tuple[int, npt.NDArray[np.bool_], Ids, Rows]  # number, taken slots, rowids, vectors

_READ = (
    "SELECT c.chunk_id, c.validity, c.rowids, v.vectors FROM vectors_chunks AS c "
    "JOIN vectors_vector_chunks00 AS v ON v._rowid_ = c.chunk_id WHERE c.chunk_id > ? "
    "ORDER BY c.chunk_id"
)
KEPT = 32 << 20  # bytes of vectors that an index asked more than once keeps in memory


class Blocks:
    """The vectors of one index: ``dimension`` elements each, "int8" or "float32".

    An int8 row is `asterisk.vectors.to_int8` of its vector, scaled by its own largest element: more
    of the vector survives than under one scale for all, and a cosine does not see the scale.
    """

    def __init__(self, connection: sqlite3.Connection, dimension: int, precision: str) -> None:
        self.connection, self.dimension = connection, dimension
        self.dtype = np.dtype("i1" if precision == "int8" else "<f4")
        self._shape = CHUNK, dimension
        self._kept: list[_Chunk] = []
        self._lengths: dict[int, Scores] = {}
        self._state: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise InputError where a chunk is not of the size that its index is made for."""
        size = CHUNK * self.dimension * self.dtype.itemsize
        wrong = self.connection.execute(
            "SELECT 1 FROM vectors_chunks AS c LEFT JOIN vectors_vector_chunks00 AS v "
            "ON v._rowid_ = c.chunk_id WHERE c.size IS NOT ? OR typeof(c.validity) <> 'blob' "
            "OR length(c.validity) <> ? OR typeof(c.rowids) <> 'blob' OR length(c.rowids) <> ? "
            "OR typeof(v.vectors) IS NOT 'blob' OR length(v.vectors) <> ? LIMIT 1",
            (CHUNK, CHUNK // 8, CHUNK * 8, size),
        ).fetchone()
        if wrong:
            raise InputError("the index is damaged: a block of vectors has the wrong size")

    def stored(self, vectors: npt.NDArray[np.float32]) -> Rows:
        """Return unit vectors, float32 [n, d], as they are stored and compared."""
        return to_int8(vectors) if self.dtype == np.int8 else vectors

    def scan(self, query: npt.NDArray[np.float32]) -> tuple[Ids, Scores]:
        """Return all ids, int64 [n], and their cosines with ``query``, float32 [d], float32 [n].

        Memory is one chunk's and 16 bytes a row, and from the second scan of an unchanged file on
        KEPT for its first chunks. An int8 query times int8 rows is summed exactly:
        no sum of 1,024 products reaches the 24 bits of float32, whatever their order.
        """
        wanted = self.stored(query[None])[0].astype(np.float32)
        length = np.sqrt(wanted @ wanted) or np.float32(1)
        wide = np.empty(self._shape, np.float32)
        keep = self._unchanged()
        known, room = self._lengths, KEPT - sum(rows.nbytes for _, _, _, rows in self._kept)
        ids, scores = [], []
        for chunk, valid, rowids, rows in chain(self._kept[:], self._chunks(self._last_kept())):
            if keep and chunk > self._last_kept() and rows.nbytes <= room:
                self._kept.append((chunk, valid, rowids, rows))
                room -= rows.nbytes
            elif chunk > self._last_kept():
                keep = False
            np.copyto(wide, rows, casting="unsafe")
            with np.errstate(invalid="ignore", over="ignore"):  # damaged or hostile floats
                dots = wide @ wanted
            lengths = known.get(chunk)
            if lengths is None:
                squares = np.einsum("nd,nd->n", wide, wide)
                lengths = known[chunk] = np.maximum(np.sqrt(squares), np.float32(1e-30))
            dots /= lengths * length
            full = valid.all()
            ids.append(rowids.copy() if full else rowids[valid])
            scores.append(dots if full else dots[valid])
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        found = np.concatenate(scores)
        # What is not finite is never anybody's nearest neighbour.
        return np.concatenate(ids), np.nan_to_num(found, nan=-1, posinf=-1, neginf=-1)

    def read(self) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        """Yield ids with their unit vectors, float32 [n, d], chunk by chunk."""
        for _, valid, rowids, rows in self._chunks():
            wide = rows[valid].astype(np.float32)
            lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
            yield rowids[valid], wide / np.maximum(lengths, np.float32(1e-30))

    def _unchanged(self) -> bool:
        """Tell whether the file is as at the last scan; else forget what was learnt from it."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        state = version, self.connection.total_changes
        if state == self._state:
            return True
        self._state, self._lengths, self._kept = state, {}, []
        return False

    def _last_kept(self) -> int:
        return self._kept[-1][0] if self._kept else -1

    def _chunks(self, after: int = -1) -> Iterator[_Chunk]:
        for chunk, validity, rowids, vectors in self.connection.execute(_READ, (after,)):
            valid = np.unpackbits(np.frombuffer(validity, "u1"), bitorder="little").astype(bool)
            rows = np.frombuffer(vectors, self.dtype).reshape(self._shape)
            yield chunk, valid, np.frombuffer(rowids, "<i8"), rows

    def insert(self, ids: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Add rows, float32 [n, d]; free slots are used before a new chunk is made."""
        rows, done = self.stored(vectors), 0
        wanted = np.array(ids, np.int64)
        for chunk, validity in self._free():
            if done == len(wanted):
                return
            done += self._fill(chunk, validity, wanted[done:], rows[done:])
        while done < len(wanted):
            (last,) = self.connection.execute(
                "SELECT coalesce(max(chunk_id), 0) FROM vectors_chunks"
            ).fetchone()
            done += self._fill(last + 1, None, wanted[done:], rows[done:])

    def _free(self) -> list[tuple[int, bytes]]:
        full = b"\xff" * (CHUNK // 8)
        return self.connection.execute(
            "SELECT chunk_id, validity FROM vectors_chunks WHERE validity <> ?", (full,)
        ).fetchall()

    def _fill(self, chunk: int, validity: bytes | None, ids: Ids, rows: Rows) -> int:
        """Put what fits into one chunk, a new one if ``validity`` is None; return how many."""
        valid = np.zeros(CHUNK, bool)
        rowids, stored = np.zeros(CHUNK, "<i8"), np.zeros(self._shape, self.dtype)
        if validity is not None:
            valid = np.unpackbits(np.frombuffer(validity, "u1"), bitorder="little").astype(bool)
            old, vectors = self.connection.execute(
                "SELECT c.rowids, v.vectors FROM vectors_chunks AS c JOIN vectors_vector_chunks00 "
                "AS v ON v._rowid_ = c.chunk_id WHERE c.chunk_id = ?",
                (chunk,),
            ).fetchone()
            rowids = np.frombuffer(old, "<i8").copy()
            stored = np.frombuffer(vectors, self.dtype).reshape(self._shape).copy()
        slots = np.flatnonzero(~valid)[: len(ids)]
        count = len(slots)
        valid[slots], rowids[slots], stored[slots] = True, ids[:count], rows[:count]
        packed = np.packbits(valid, bitorder="little").tobytes()
        self.connection.execute(
            "INSERT INTO vectors_chunks(chunk_id, size, validity, rowids) VALUES (?, ?, ?, ?) "
            "ON CONFLICT(chunk_id) DO UPDATE SET validity = excluded.validity, "
            "rowids = excluded.rowids",
            (chunk, CHUNK, packed, rowids.tobytes()),
        )
        # vec0 finds a chunk's vectors by SQLite's own row number; its column "rowid" is another.
        self.connection.execute(
            "INSERT OR REPLACE INTO vectors_vector_chunks00(_rowid_, rowid, vectors) "
            "VALUES (?, ?, ?)",
            (chunk, chunk, stored.tobytes()),
        )
        self.connection.executemany(
            "INSERT INTO vectors_rowids(rowid, chunk_id, chunk_offset) VALUES (?, ?, ?)",
            zip(ids[:count].tolist(), [chunk] * count, slots.tolist(), strict=True),
        )
        return count

    def delete(self, ids: Sequence[int]) -> None:
        """Free the slots of ``ids``; a chunk without any row left goes."""
        places: dict[int, list[int]] = {}
        for row in ids:
            found = self.connection.execute(
                "DELETE FROM vectors_rowids WHERE rowid = ? RETURNING chunk_id, chunk_offset",
                (row,),
            ).fetchall()
            for chunk, slot in found:
                places.setdefault(chunk, []).append(slot)
        for chunk, slots in places.items():
            self._clear(chunk, slots)

    def _clear(self, chunk: int, slots: list[int]) -> None:
        (validity,) = self.connection.execute(
            "SELECT validity FROM vectors_chunks WHERE chunk_id = ?", (chunk,)
        ).fetchone() or (b"",)
        valid = np.unpackbits(np.frombuffer(validity, "u1"), bitorder="little")
        valid[slots] = 0
        if valid.any():
            self.connection.execute(
                "UPDATE vectors_chunks SET validity = ? WHERE chunk_id = ?",
                (np.packbits(valid, bitorder="little").tobytes(), chunk),
            )
            return
        self.connection.execute("DELETE FROM vectors_chunks WHERE chunk_id = ?", (chunk,))
        self.connection.execute("DELETE FROM vectors_vector_chunks00 WHERE _rowid_ = ?", (chunk,))


def top(ids: Ids, scores: Scores, count: int) -> list[tuple[int, float]]:
    """Return the ``count`` best (id, score), best first, the smaller id first among equals."""
    if count < len(ids):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = scores >= least
        ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids, -scores))[:count]
    return list(zip(ids[order].tolist(), scores[order].tolist(), strict=True))
