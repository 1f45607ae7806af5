"""Documents, passages, words and vectors, written together inside a caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asterisk.apps.search.blocks import Blocks
from asterisk.apps.search.passages import Passage
from asterisk.common.errors import InputError
from asterisk.sources.document import Document


class Store:
    """The tables of one connection; ``words`` tells whether there is an FTS5 table."""

    def __init__(self, connection: sqlite3.Connection, blocks: Blocks, *, words: bool) -> None:
        self.connection, self.blocks, self.words = connection, blocks, words

    def source(self, path: str) -> int:
        """Return the number of a source, a new one's if it is not known."""
        row = self.connection.execute(
            "INSERT INTO sources(path, stamp) VALUES (?, '') "
            "ON CONFLICT(path) DO UPDATE SET path = excluded.path RETURNING id",
            (path,),
        ).fetchall()
        return int(row[0][0])

    def is_source(self, path: str) -> bool:
        """Tell whether a source is known."""
        row = self.connection.execute("SELECT 1 FROM sources WHERE path = ?", (path,)).fetchone()
        return row is not None

    def sources(self) -> list[tuple[int, str]]:
        """Return number and path of all sources."""
        return self.connection.execute("SELECT id, path FROM sources ORDER BY id").fetchall()

    def stamp(self, source: int, stamp: str, kind: str | None) -> None:
        """Note what proves that a source, whose documents are all there, has not changed.

        ``kind`` is what its content is like; None leaves that as it is.
        """
        self.connection.execute(
            "UPDATE sources SET stamp = ?, kind = coalesce(?, kind) WHERE id = ?",
            (stamp, kind, source),
        )

    def forget(self, source: int) -> None:
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

    def insert(
        self,
        documents: Sequence[tuple[Document, int, int, list[Passage]]],
        vectors: npt.NDArray[np.float32],
    ) -> list[int]:
        """Add documents with the vectors, float32 [n, d], of all their passages; return numbers.

        Each is a document, its source, the number it had or 0, and its passages. What replaces a
        removed document keeps its number.
        """
        if not documents:
            return []
        (last,) = self.connection.execute("SELECT coalesce(max(id), 0) FROM documents").fetchone()
        (first,) = self.connection.execute(
            "SELECT coalesce(max(id), 0) + 1 FROM passages"
        ).fetchone()
        last = max(last, *(old for _, _, old, _ in documents))
        rows: list[tuple[object, ...]] = []
        parts: list[tuple[int, int, int, int]] = []
        texts: list[tuple[int, str]] = []
        numbers: list[int] = []
        for document, source, old, cut in documents:
            if not old:
                last += 1
            number = old or last
            numbers.append(number)
            row = first + len(parts)
            digest = bytes.fromhex(document.digest)
            title, text = document.title, document.text
            about = document.date, document.author, json.dumps(document.tags, ensure_ascii=False)
            rows.append((number, source, document.key, title, digest, row, len(cut), text, *about))
            for passage in cut:
                start, end = passage.start, passage.end
                texts.append((first + len(parts), worded(title, text[start:end])))
                parts.append((first + len(parts), number, start, end))
        many = self.connection.executemany
        many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        slot = self.blocks.append(vectors)
        many(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?)",
            [(*part, slot + row) for row, part in enumerate(parts)],
        )
        if self.words:
            many("INSERT INTO words(rowid, text) VALUES (?, ?)", texts)
        return numbers

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove documents with all that belongs to them."""
        slots: list[tuple[int]] = []
        for number in numbers:
            row = self.connection.execute(
                "SELECT title, text, first, count FROM documents WHERE id = ?", (number,)
            ).fetchone()
            if row is None:
                continue
            title, text, first, count = row
            inside = first, first + count - 1
            if self.words:
                # A table without contents is told what it held.
                places = self.connection.execute(
                    "SELECT id, start, end FROM passages WHERE id BETWEEN ? AND ?", inside
                ).fetchall()
                self.connection.executemany(
                    "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)",
                    [(passage, worded(title, text[start:end])) for passage, start, end in places],
                )
            slots += self.connection.execute(
                "DELETE FROM passages WHERE id BETWEEN ? AND ? RETURNING slot", inside
            ).fetchall()
            self.connection.execute("DELETE FROM documents WHERE id = ?", (number,))
        self.blocks.delete([int(slot) for (slot,) in slots])


def worded(title: str, text: str) -> str:
    """Return what stands in the table of words for a passage: the title's words too."""
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
