"""One run that makes an index hold what its sources hold: only what is new is embedded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from asterisk.apps.search.database import transaction
from asterisk.apps.search.passages import Lengths, Passage, passages, with_title
from asterisk.common.errors import EngineError, InputError, UsageError
from asterisk.sources import Options, Report, SourceFile, scan
from asterisk.sources.document import Unreadable
from asterisk.sources.reading import KIND_NAMES, read_file
from asterisk.sources.scan import skipped, source_name

if TYPE_CHECKING:
    from asterisk.apps.search.index import Index, Progress
    from asterisk.runtimes.runtime import Runtime, Vectors
    from asterisk.sources import Document

BATCH = 512  # passages a transaction
BATCH_CHARACTERS = 4 << 20


@dataclass(slots=True)
class Changes:
    """What an update did, in documents; ``passages`` counts what was embedded."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0  # whose file gives something that was not meant to replace them
    passages: int = 0


class _Stored(NamedTuple):
    """A source as the index has it: its number, 0 if it has none, and how many documents."""

    number: int = 0
    stamp: str = ""
    kind: str = ""
    documents: int = 0


class _NewDocument(NamedTuple):
    """A document to write; ``number`` is the one that it has, 0 if it is new."""

    document: Document
    source: int
    number: int
    passages: list[Passage]


@dataclass(slots=True)
class _Batch:
    """Documents to write together, and the sources that are complete with them."""

    documents: list[_NewDocument] = field(default_factory=list)
    # Number, stamp and kind; and whether all of it was read: what it no longer has is removed.
    complete: list[tuple[int, str, str | None, bool]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    count: int = 0  # documents, those that have not changed too

    def is_full(self) -> bool:
        many = len(self.texts) >= BATCH or len(self.complete) >= 4 * BATCH
        return many or self.characters >= BATCH_CHARACTERS


class Update:
    """While one batch is embedded, the next is read and the one before is written."""

    def __init__(
        self, index: Index, lengths: Lengths, runtime: Runtime, progress: Progress | None
    ) -> None:
        self.index, self.lengths, self.runtime = index, lengths, runtime
        self.progress = progress or (lambda _: None)
        self.changes = Changes()
        self._run = index.connection.execute
        self._pool = ThreadPoolExecutor(1, "embedding")
        self._stopped = False
        self._batch = _Batch()
        self._embedding: tuple[_Batch, Future[Vectors]] | None = None
        self._seen = bytearray()  # by document number
        self._found = 0  # documents that the index had before
        self._unwritten: set[tuple[int, str]] = set()
        self._numbers: dict[str, int] = {}  # of sources, by path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        self._pool.shutdown(wait=True, cancel_futures=True)
        if kind is None:
            # Readers may be in the way; then the next writer does it.
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")

    def replace_all(self, documents: Iterable[Document]) -> None:
        """Make the index hold ``documents`` and nothing else."""
        for document in documents:
            self._add(self._number(document.source), document)
        for source in self._numbers.values():
            self._batch.complete.append((source, "", None, True))
        self._send()
        self._write()
        self._remove_sources(lambda path: path not in self._numbers)

    def update_files(
        self, paths: Sequence[Path], options: Options, report: Report, *, prune: bool
    ) -> None:
        """Make the index hold the documents under ``paths``, reading only files that changed."""
        visited: set[str] = set()
        # SQLite's own files beside the index are none of the user's texts.
        own = {f"{self.index.path}{end}" for end in ("", "-wal", "-shm", "-lock", "-journal")}
        databases = [source_name(it.path) for it in options.databases]
        if len(set(databases)) < len(databases):
            raise UsageError("one query a database: join two with UNION ALL")
        existing, roots = [], databases
        report.unreachable.clear()
        for path in paths:
            root = source_name(path)
            lost = () if os.path.lexists(path) else self._sources()
            gone = [source for _, source in lost if _under(source, [root])]
            if not gone:
                existing.append(path)
            if gone in ([], [root]) or prune:
                roots.append(root)
            else:  # it was a folder, such as a disk's
                kept = sum(self._stored(source).documents for source in gone)
                self.changes.kept += kept
                reason = f"not there; {_documents(kept)} kept (--prune removes them)"
                report(skipped(path, reason, temporary=True))
        for file in scan(existing, options, report):
            if str(file.path.absolute()) in own or str(file.path.resolve()) in own:
                continue
            visited.add(file.source)
            stored = self._stored(file.source)
            if file.unchanged(stored.stamp):
                self.changes.unchanged += stored.documents
                self.progress(1)
            else:
                self._read(file, stored, options, report, prune)
        self._send()
        self._write()
        # What is only out of reach today, a folder without permission, is not gone.
        spared = report.unreachable
        self._remove_sources(
            lambda path: path not in visited and _under(path, roots) and not _under(path, spared)
        )

    def _read(
        self, file: SourceFile, stored: _Stored, options: Options, report: Report, prune: bool
    ) -> None:
        first, before, count = self._found, report.count, 0
        kind = ""
        fault: Unreadable | None = None

        def check_kind(found: str, named: bool) -> None:
            nonlocal kind
            if not prune and stored.kind and found not in {"", stored.kind} and not named:
                raise Unreadable(f"now {KIND_NAMES.get(found, found)}")
            kind = found

        try:
            for document in read_file(file, options, report, check_kind):
                count += 1
                self._add(self._number(file.source), document)
        except Unreadable as failure:
            fault = failure
        # An error page, an empty file or half of one does not take away what was there.
        temporary = fault is not None and fault.temporary
        keep = temporary or (not prune and (fault is not None or not count))
        kept = stored.documents - (self._found - first) if keep else 0
        reason = str(fault or "no documents in it")
        if kept:
            self.changes.kept += kept
            how = "" if temporary else f" (--prune removes {'it' if kept == 1 else 'them'})"
            reason += f"; {_documents(kept)} kept{how}"
        if fault or kept:
            report(skipped(file.path, reason, temporary=temporary))
        faulty = report.count > before
        if not stored.number and not count and faulty:
            return
        # What could not be read is reported again next time, so the file is read again.
        stamp, content = "" if faulty else file.stamp, None if kept else kind
        self._batch.complete.append((self._number(file.source), stamp, content, not keep))
        if self._batch.is_full():
            self._send()

    def _sources(self) -> list[tuple[int, str]]:
        return self._run("SELECT id, path FROM sources ORDER BY id").fetchall()

    def _stored(self, source: str) -> _Stored:
        row = self._run(
            "SELECT id, stamp, kind, (SELECT count(*) FROM documents WHERE source = s.id) "
            "FROM sources AS s WHERE path = ?",
            (source,),
        ).fetchone()
        return _Stored(*row) if row else _Stored()

    def _number(self, source: str) -> int:
        """Return the number of a source, a new one unless it has one."""
        if source not in self._numbers:
            rows = self._run(
                "INSERT INTO sources(path, stamp) VALUES (?, '') "
                "ON CONFLICT(path) DO UPDATE SET path = excluded.path RETURNING id",
                (source,),
            )
            ((self._numbers[source],),) = rows.fetchall()
        return self._numbers[source]

    def _documents_of(self, source: int) -> list[int]:
        rows = self._run("SELECT id FROM documents WHERE source = ?", (source,))
        return [number for (number,) in rows]

    def _add(self, source: int, document: Document) -> None:
        query = "SELECT id, digest FROM documents WHERE source = ? AND key = ?"
        number, digest = self._run(query, (source, document.key)).fetchone() or (0, b"")
        if (source, document.key) in self._unwritten or self._is_seen(number):
            raise InputError(f"{document.source} has two documents {document.key[:80]!r}")
        if number:
            self._found += 1
            self._set_seen(number)
            if digest.hex() == document.digest:
                self.changes.unchanged += 1
                self._batch.count += 1
                if self._batch.count >= BATCH:
                    self._send()
                return
        lengths, tokenizer = self.lengths, self.runtime.tokenizer
        cut = passages(document.text, tokenizer, longest=lengths.longest, overlap=lengths.overlap)
        if not cut:
            if number:
                self._seen[number] = 0
            return
        self._unwritten.add((source, document.key))
        self._batch.documents.append(_NewDocument(document, source, number, cut))
        self._batch.count += 1
        for start, end in cut:
            text = document.text[start:end]
            self._batch.texts.append(with_title(document.title, text, tokenizer, lengths.title))
            self._batch.characters += len(text)
        if self._batch.is_full():
            self._send()

    def _send(self) -> None:
        """Start to embed the batch, and write the one that was embedded before it."""
        batch, self._batch = self._batch, _Batch()
        vectors = self._pool.submit(self._encode, batch.texts)
        self._write()
        self._embedding = batch, vectors

    def _encode(self, texts: list[str]) -> Vectors:
        """Embed piece by piece: one very long document must not outlast an interrupt."""
        encode, name = self.runtime.encode_document, self.index.settings.prompt_name
        parts = []
        for start in range(0, max(len(texts), 1), BATCH):
            if self._stopped:
                break
            parts.append(encode(texts[start : start + BATCH], prompt_name=name))
        return np.concatenate(parts)

    def _write(self) -> None:
        if self._embedding is None:
            return
        (batch, future), self._embedding = self._embedding, None
        vectors = future.result()
        if vectors.shape != (len(batch.texts), self.index.dimension):
            raise EngineError(f"the model gave vectors of shape {list(vectors.shape)}")
        changes, replaced = self.changes, [it.number for it in batch.documents if it.number]
        if batch.documents or batch.complete:
            with transaction(self.index.connection):
                self._remove(replaced)
                self._insert(batch.documents, vectors)
                for source, stamp, kind, whole in batch.complete:
                    every = self._documents_of(source) if whole else ()
                    gone = [number for number in every if not self._is_seen(number)]
                    self._remove(gone)
                    self._run(
                        "UPDATE sources SET stamp = ?, kind = coalesce(?, kind) WHERE id = ?",
                        (stamp, kind, source),
                    )
                    changes.removed += len(gone)
        changes.changed += len(replaced)
        changes.added += len(batch.documents) - len(replaced)
        changes.passages += len(batch.texts)
        self._unwritten.difference_update((it.source, it.document.key) for it in batch.documents)
        self.progress(batch.count)

    def _insert(self, documents: Sequence[_NewDocument], vectors: Vectors) -> None:
        """Add documents with the vectors, float32 [n, d], of all their passages."""
        if not documents:
            return
        (last,) = self._run("SELECT coalesce(max(id), 0) FROM documents").fetchone()
        (passage,) = self._run("SELECT coalesce(max(id), 0) FROM passages").fetchone()
        slot = self.index.blocks.append(vectors)
        last = max(last, *(new.number for new in documents))
        rows: list[tuple[object, ...]] = []
        parts: list[tuple[int, ...]] = []
        texts: list[tuple[int, str]] = []
        for it, source, old, cut in documents:
            last += not old
            number = old or last
            self._set_seen(number)
            text = it.key, it.title, bytes.fromhex(it.digest), passage + 1, len(cut), it.text
            about = it.date, it.author, json.dumps(it.tags, ensure_ascii=False)
            rows.append((number, source, *text, *about))
            for start, end in cut:
                passage += 1
                parts.append((passage, number, start, end, slot + len(parts)))
                texts.append((passage, _indexed_text(it.title, it.text[start:end])))
        run = self.index.connection.executemany
        run("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        run("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", parts)
        if self.index.settings.words:
            run("INSERT INTO words(rowid, text) VALUES (?, ?)", texts)

    def _remove(self, numbers: Sequence[int]) -> None:
        """Remove documents with everything that belongs to them."""
        slots: list[int] = []
        for number in numbers:
            query = "SELECT title, text, first, first + count - 1 FROM documents WHERE id = ?"
            row = self._run(query, (number,)).fetchone()
            if row is None:
                continue
            title, text, *ids = row
            removed = self._run(
                "DELETE FROM passages WHERE id BETWEEN ? AND ? RETURNING slot, id, start, end", ids
            ).fetchall()
            slots += [slot for slot, *_ in removed]
            if self.index.settings.words:  # a table without contents has to be given what it held
                self.index.connection.executemany(
                    "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)",
                    [(id, _indexed_text(title, text[start:end])) for _, id, start, end in removed],
                )
            self._run("DELETE FROM documents WHERE id = ?", (number,))
        self.index.blocks.delete(slots)

    def _remove_sources(self, is_gone: Callable[[str], bool]) -> None:
        for source in [number for number, path in self._sources() if is_gone(path)]:
            numbers = iter(self._documents_of(source))
            while part := list(islice(numbers, BATCH)):
                with transaction(self.index.connection):
                    self._remove(part)
                self.changes.removed += len(part)
            self._run("DELETE FROM sources WHERE id = ?", (source,))

    def _is_seen(self, number: int) -> bool:
        return number < len(self._seen) and bool(self._seen[number])

    def _set_seen(self, number: int) -> None:
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 4_096 - len(self._seen)))
        self._seen[number] = 1


def _indexed_text(title: str, text: str) -> str:
    """Return what is in the table of words for a passage: the title's words too."""
    return text if not title or text.startswith(title) else f"{title}\n{text}"


def _documents(count: int) -> str:
    return "1 document of it is" if count == 1 else f"{count:,} documents of it are"


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)
