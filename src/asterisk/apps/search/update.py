"""One run that makes an index hold what its sources hold: only what is new is embedded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from asterisk.apps.search.database import transaction
from asterisk.apps.search.passages import Lengths, passages, with_title
from asterisk.apps.search.store import NewDocument, Store, StoredSource
from asterisk.common.errors import EngineError, InputError, UsageError
from asterisk.sources import Options, Report, Skipped, SourceFile, read, scan
from asterisk.sources.document import Unreadable
from asterisk.sources.reading import KIND_NAMES
from asterisk.sources.scan import printable_path, source_name

if TYPE_CHECKING:
    from asterisk.apps.search.index import Index
    from asterisk.runtimes.runtime import Runtime, Vectors
    from asterisk.sources import Document

BATCH = 512  # passages a transaction
BATCH_CHARACTERS = 4 << 20


@dataclass(slots=True)
class Changes:
    """What an update did, in documents; ``passages`` counts what was embedded.

    ``kept`` are those whose file gives something that was not meant to replace them.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0
    passages: int = 0


@dataclass(slots=True)
class _Batch:
    """Documents to write together, and the sources that are complete with them."""

    documents: list[NewDocument] = field(default_factory=list)
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
        self,
        index: Index,
        lengths: Lengths,
        runtime: Runtime,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.index, self.lengths, self.runtime = index, lengths, runtime
        self.progress = progress or (lambda _: None)
        self.changes = Changes()
        self._store = Store(index.connection, index.blocks, words=index.settings.words)
        self._pool = ThreadPoolExecutor(1, "embedding")
        self._stopped = False
        self._batch = _Batch()
        self._embedding: tuple[_Batch, Future[Vectors]] | None = None
        self._seen = bytearray()  # by document number
        self._found = 0  # documents that the index had before
        self._unwritten: set[tuple[int, str]] = set()
        self._sources: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped = kind is not None
        self._pool.shutdown(wait=True, cancel_futures=True)
        if kind is None:
            # Readers may be in the way; then the next writer does it.
            self.index.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def replace_all(self, documents: Iterable[Document]) -> None:
        """Make the index hold ``documents`` and nothing else."""
        for document in documents:
            self._add(self._source(document.source), document)
        for source in self._sources.values():
            self._batch.complete.append((source, "", None, True))
        self._send()
        self._write()
        self._remove_sources(lambda path: path not in self._sources)

    def update_files(
        self, paths: Sequence[Path], options: Options | None, report: Report | None, *, prune: bool
    ) -> None:
        """Make the index hold the documents under ``paths``, reading only files that changed."""
        watched = _WatchedReport(report or Report(), prune=prune)
        visited: set[str] = set()
        # SQLite's own files beside the index are none of the user's texts.
        own = {f"{self.index.path}{end}" for end in ("", "-wal", "-shm", "-lock", "-journal")}
        databases = [source_name(it.path) for it in (options or Options()).databases]
        if len(set(databases)) < len(databases):
            raise UsageError("one query a database: join two with UNION ALL")
        existing, roots = [], databases
        for path in paths:
            root = source_name(path)
            gone = self._sources_under(root) if not os.path.lexists(path) else []
            if not gone:
                existing.append(path)
            if gone in ([], [root]) or prune:
                roots.append(root)
            else:  # it was a folder, such as a disk's
                self._keep(path, gone, watched)
        for file in scan(existing, options, watched):
            if str(file.path.absolute()) in own or str(file.path.resolve()) in own:
                continue
            visited.add(file.source)
            stored = self._store.find_source(file.source)
            if stored and file.unchanged(stored.stamp):
                self.changes.unchanged += stored.documents
                self.progress(1)
            else:
                self._read(file, stored, options, watched)
        self._send()
        self._write()
        # What is only out of reach today, a folder without permission, is not gone.
        passing = watched.passing
        self._remove_sources(
            lambda path: path not in visited and _under(path, roots) and not _under(path, passing)
        )

    def _sources_under(self, root: str) -> list[str]:
        return [path for _, path in self._store.sources() if _under(path, [root])]

    def _keep(self, path: Path, sources: Iterable[str], report: Report) -> None:
        """Keep the documents of a folder that does not exist any more."""
        stored = filter(None, map(self._store.find_source, sources))
        kept = sum(source.documents for source in stored)
        self.changes.kept += kept
        reason = f"not there; {_documents(kept)} kept (--prune removes them)"
        report(Skipped(printable_path(path), reason, source_name(path), whole=True, passing=True))

    def _read(
        self,
        file: SourceFile,
        stored: StoredSource | None,
        options: Options | None,
        watched: _WatchedReport,
    ) -> None:
        first, count = self._found, 0
        watched.begin(file, stored.kind if stored else "")
        for document in read(file, options, watched):
            count += 1
            self._add(self._source(file.source), document)
        # An error page, an empty file or half of one does not take away what was there.
        wrong = watched.fault is not None or not count
        keep = file.source in watched.passing or (wrong and not watched.prune)
        kept = stored.documents - (self._found - first) if stored and keep else 0
        watched.end(file, kept)
        self.changes.kept += kept
        faulty = file.source in watched.faulty
        if not stored and not count and faulty:
            return
        # What could not be read is reported again next time, so the file is read again.
        stamp, kind = "" if faulty else file.stamp, None if kept else watched.kind
        self._batch.complete.append((self._source(file.source), stamp, kind, not keep))
        if self._batch.is_full():
            self._send()

    def _source(self, path: str) -> int:
        if path not in self._sources:
            self._sources[path] = self._store.add_source(path)
        return self._sources[path]

    def _add(self, source: int, document: Document) -> None:
        row = self._store.find(source, document.key)
        number, digest = row or (0, "")
        if (source, document.key) in self._unwritten or self._is_seen(number):
            raise InputError(f"{document.source} has two documents {document.key[:80]!r}")
        if number:
            self._found += 1
            self._set_seen(number)
            if digest == document.digest:
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
        self._batch.documents.append(NewDocument(document, source, number, cut))
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
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _write(self) -> None:
        if self._embedding is None:
            return
        (batch, future), self._embedding = self._embedding, None
        vectors = future.result()
        if vectors.shape != (len(batch.texts), self.index.dimension):
            raise EngineError(f"the model gave vectors of shape {list(vectors.shape)}")
        store, changes = self._store, self.changes
        replaced = [it.number for it in batch.documents if it.number]
        if batch.documents or batch.complete:
            with transaction(self.index.connection):
                store.remove(replaced)
                for number in store.insert(batch.documents, vectors):
                    self._set_seen(number)
                for source, stamp, kind, whole in batch.complete:
                    every = store.documents_of(source) if whole else ()
                    gone = [number for number in every if not self._is_seen(number)]
                    store.remove(gone)
                    store.set_stamp(source, stamp, kind)
                    changes.removed += len(gone)
        changes.changed += len(replaced)
        changes.added += len(batch.documents) - len(replaced)
        changes.passages += len(batch.texts)
        self._unwritten.difference_update((it.source, it.document.key) for it in batch.documents)
        self.progress(batch.count)

    def _remove_sources(self, is_gone: Callable[[str], bool]) -> None:
        for source in [number for number, path in self._store.sources() if is_gone(path)]:
            numbers = self._store.documents_of(source)
            for start in range(0, len(numbers), BATCH):
                part = numbers[start : start + BATCH]
                with transaction(self.index.connection):
                    self._store.remove(part)
                self.changes.removed += len(part)
            with transaction(self.index.connection):
                self._store.remove_source(source)

    def _is_seen(self, number: int) -> bool:
        return number < len(self._seen) and bool(self._seen[number])

    def _set_seen(self, number: int) -> None:
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 4_096 - len(self._seen)))
        self._seen[number] = 1


class _WatchedReport(Report):
    """Passes everything on to ``report``: what ends the reading of a file, when it has ended."""

    def __init__(self, report: Report, *, prune: bool) -> None:
        super().__init__()
        self.report, self.prune = report, prune
        self.faulty: set[str] = set()
        self.passing: set[str] = set()  # of these, what is out of reach
        self.fault: Skipped | None = None
        self.kind = self._before = self._reading = ""

    def __call__(self, skipped: Skipped) -> None:
        if skipped.source and not skipped.note:
            self.faulty.add(skipped.source)
            if skipped.passing:
                self.passing.add(skipped.source)
        if skipped.whole and skipped.source == self._reading:
            self.fault = skipped
        else:
            self.report(skipped)

    def begin(self, file: SourceFile, before: str) -> None:
        """Expect reports about a file, whose kind was ``before``, "" if that is not stored."""
        self.fault, self.kind, self._before, self._reading = None, "", before, file.source

    def check_kind(self, kind: str, named: bool) -> None:
        """Remember the kind; Unreadable for another than before that the name does not say."""
        before = "" if self.prune else self._before
        if before and kind and before != kind and not named:
            raise Unreadable(f"now {KIND_NAMES.get(kind, kind)}")
        self.kind = kind

    def end(self, file: SourceFile, kept: int) -> None:
        """Pass on what ended the reading, if anything did, and that ``kept`` documents stay."""
        fault, self._reading = self.fault, ""
        if kept:
            path = printable_path(file.path)
            fault = fault or Skipped(path, "no documents in it", file.source, whole=True)
            how = "" if fault.passing else f" (--prune removes {'it' if kept == 1 else 'them'})"
            fault = replace(fault, reason=f"{fault.reason}; {_documents(kept)} kept{how}")
        if fault:
            self(fault)


def _documents(count: int) -> str:
    return "1 document of it is" if count == 1 else f"{count:,} documents of it are"


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)
