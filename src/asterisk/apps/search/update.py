"""Making an index hold what there is: only what is new is embedded, batch by batch."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from asterisk.apps.search.blocks import Blocks
from asterisk.apps.search.connection import transaction
from asterisk.apps.search.facts import Facts
from asterisk.apps.search.passages import Lengths, Passage, composed, passages
from asterisk.apps.search.store import Store
from asterisk.common.errors import EngineError, InputError, UsageError
from asterisk.sources import Options, Report, Skipped, SourceFile, read, scan
from asterisk.sources.document import Unreadable
from asterisk.sources.kinds import NAMES
from asterisk.sources.scan import shown, source_name

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime, Vectors
    from asterisk.sources import Document

BATCH = 512  # passages a transaction
BATCH_CHARACTERS = 4 << 20


@dataclass(slots=True)
class Changes:
    """What an update did, in documents; ``passages`` counts what was embedded.

    ``kept`` are those whose file no longer gives them, but something that was not meant to be.
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

    documents: list[tuple[Document, int, int, list[Passage]]] = field(default_factory=list)
    # With stamp and kind, and whether all of it was read: what it no longer has is removed.
    complete: list[tuple[int, str, str | None, bool]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    done: int = 0

    def is_full(self) -> bool:
        many = len(self.texts) >= BATCH or len(self.complete) >= 4 * BATCH
        return many or self.characters >= BATCH_CHARACTERS


class Update:
    """One run. While one batch is embedded the next is read and the one before is written."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        facts: Facts,
        blocks: Blocks,
        lengths: Lengths,
        *,
        runtime: Runtime,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.path, self.connection, self.facts = path, connection, facts
        self.lengths, self.runtime = lengths, runtime
        self.progress = progress or (lambda _: None)
        self.changes = Changes()
        self._store = Store(connection, blocks, words=facts.words)
        self._pool = ThreadPoolExecutor(1, "embedding")
        self._stopped = False
        self._batch = _Batch()
        self._waiting: tuple[_Batch, Future[Vectors]] | None = None
        self._seen = bytearray()  # by document number
        self._found = 0  # documents that were there before
        self._unwritten: set[tuple[int, str]] = set()
        self._sources: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = kind is not None
        self._pool.shutdown(wait=True, cancel_futures=True)
        if kind is None:
            # Readers may be in the way; then the next writer does it.
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def all(self, documents: Iterable[Document]) -> None:
        """Make ``documents`` everything there is."""
        for document in documents:
            self._add(self._source(document.source), document)
        for source in self._sources.values():
            self._batch.complete.append((source, "", None, True))
        self._flush()
        self._leave(lambda path: path not in self._sources)

    def files(
        self, paths: Sequence[Path], options: Options | None, report: Report | None, *, prune: bool
    ) -> None:
        """Make the documents under ``paths`` what is there, reading only files that changed."""
        watched = _Watched(report or Report(), None if prune else self._known)
        visited: set[str] = set()
        # SQLite's own files beside the index are none of the user's texts.
        own = {f"{self.path}{end}" for end in ("", "-wal", "-shm", "-lock", "-journal")}
        databases = [source_name(it.path) for it in (options or Options()).databases]
        gone = [path for path in paths if self._is_gone(path)]
        away = [] if prune else [path for path in gone if self._is_away(path, watched)]
        roots = [source_name(path) for path in paths if path not in away] + databases
        paths = [path for path in paths if path not in gone]
        if len(set(databases)) < len(databases):
            raise UsageError("one query a database: join two with UNION ALL")
        for file in scan(paths, options, watched):
            if str(file.path.absolute()) in own or str(file.path.resolve()) in own:
                continue
            visited.add(file.source)
            if file.unchanged(self._known(file.source)[0]):
                self.changes.unchanged += self._count(file.source)
                self.progress(1)
                continue
            self._file(file, options, watched)
        self._flush()
        # What is only out of reach today, a folder without permission, is not gone.
        kept = watched.passing
        self._leave(
            lambda path: path not in visited and _under(path, roots) and not _under(path, kept)
        )

    def _is_gone(self, path: Path) -> bool:
        """Tell whether a path that is named does not exist, but did when it was indexed."""
        root = [source_name(path)]
        return not os.path.lexists(path) and any(
            _under(it, root) for _, it in self._store.sources()
        )

    def _is_away(self, path: Path, report: Report) -> bool:
        """Tell whether a path that is gone was a folder, such as a disk's; its documents stay."""
        root = source_name(path)
        sources = [it for _, it in self._store.sources() if _under(it, [root])]
        if sources == [root]:
            return False
        kept = sum(map(self._count, sources))
        self.changes.kept += kept
        reason = f"not there; {_documents(kept)} kept (--prune removes them)"
        report(Skipped(shown(path), reason, root, whole=True, passing=True))
        return True

    def _file(self, file: SourceFile, options: Options | None, watched: _Watched) -> None:
        known, before = self._store.is_source(file.source), self._count(file.source)
        first, found = self._found, 0
        watched.begin(file)
        for document in read(file, options, watched):
            found += 1
            self._add(self._source(file.source), document)
        # An error page, an empty file or half of one does not take away what was there.
        wrong = watched.fault is not None or not found
        keep = file.source in watched.passing or (wrong and not watched.prune)
        kept = before - (self._found - first) if keep else 0
        watched.finish(file, kept)
        self.changes.kept += kept
        faulty = file.source in watched.faulty
        if not known and not found and faulty:
            return
        # What could not be read is told again next time, so the file is read again.
        stamp, kind = "" if faulty else file.stamp, None if kept else watched.kind
        self._batch.complete.append((self._source(file.source), stamp, kind, not keep))
        if self._batch.is_full():
            self._send()

    def _add(self, source: int, document: Document) -> None:
        if (source, document.key) in self._unwritten:
            raise InputError(f"{document.source} has two documents {document.key[:80]!r}")
        known = self._store.find(source, document.key)
        if known is not None:
            self._found += 1
            number, digest = known
            if self._is_seen(number):
                raise InputError(f"{document.source} has two documents {document.key[:80]!r}")
            self._see(number)
            if digest == document.digest:
                self.changes.unchanged += 1
                self._batch.done += 1
                if self._batch.done >= BATCH:
                    self._send()
                return
        lengths, tokenizer = self.lengths, self.runtime.tokenizer
        cut = passages(document.text, tokenizer, longest=lengths.longest, overlap=lengths.overlap)
        if not cut:
            if known is not None:
                self._seen[known[0]] = 0
            return
        self._unwritten.add((source, document.key))
        self._batch.documents.append((document, source, known[0] if known else 0, cut))
        self._batch.done += 1
        for passage in cut:
            text = document.text[passage.start : passage.end]
            self._batch.texts.append(composed(document.title, text, tokenizer, lengths.title))
            self._batch.characters += len(text)
        if self._batch.is_full():
            self._send()

    def _send(self) -> None:
        """Let the batch be embedded, and write the one that was embedded before it."""
        batch, self._batch = self._batch, _Batch()
        vectors = self._pool.submit(self._encode, batch.texts)
        self._write()
        self._waiting = batch, vectors

    def _encode(self, texts: list[str]) -> Vectors:
        """Embed piece by piece: one very long document must not outlast an interrupt."""
        parts = []
        for start in range(0, max(len(texts), 1), BATCH):
            if self._stopped:
                break
            parts.append(
                self.runtime.encode_document(
                    texts[start : start + BATCH], prompt_name=self.facts.prompt_name
                )
            )
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _flush(self) -> None:
        self._send()
        self._write()

    def _write(self) -> None:
        if self._waiting is None:
            return
        (batch, future), self._waiting = self._waiting, None
        vectors = future.result()
        if vectors.shape != (len(batch.texts), self.facts.dimension):
            raise EngineError(f"the model gave vectors of shape {list(vectors.shape)}")
        store, changes = self._store, self.changes
        if batch.documents or batch.complete:
            with transaction(self.connection):
                store.remove([old for _, _, old, _ in batch.documents if old])
                for number in store.insert(batch.documents, vectors):
                    self._see(number)
                for source, stamp, kind, whole in batch.complete:
                    every = store.documents_of(source) if whole else ()
                    gone = [number for number in every if not self._is_seen(number)]
                    store.remove(gone)
                    store.stamp(source, stamp, kind)
                    changes.removed += len(gone)
        replaced = sum(1 for _, _, old, _ in batch.documents if old)
        changes.changed += replaced
        changes.added += len(batch.documents) - replaced
        changes.passages += len(batch.texts)
        for document, source, _, _ in batch.documents:
            self._unwritten.discard((source, document.key))
        self.progress(batch.done)

    def _leave(self, gone: Callable[[str], bool]) -> None:
        """Remove the sources that are ``gone``, a batch at a time."""
        sources = [number for number, path in self._store.sources() if gone(path)]
        for source in sources:
            for part in _parts(self._store.documents_of(source)):
                with transaction(self.connection):
                    self._store.remove(part)
                self.changes.removed += len(part)
            with transaction(self.connection):
                self._store.forget(source)

    def _source(self, path: str) -> int:
        if path not in self._sources:
            self._sources[path] = self._store.source(path)
        return self._sources[path]

    def _known(self, path: str) -> tuple[str, str]:
        """Return a source's stamp and kind, "" for what is not known."""
        row = self.connection.execute(
            "SELECT stamp, kind FROM sources WHERE path = ?", (path,)
        ).fetchone()
        return (str(row[0]), str(row[1])) if row else ("", "")

    def _count(self, path: str) -> int:
        (count,) = self.connection.execute(
            "SELECT count(*) FROM documents WHERE source = (SELECT id FROM sources WHERE path = ?)",
            (path,),
        ).fetchone()
        return int(count)

    def _is_seen(self, number: int) -> bool:
        return number < len(self._seen) and bool(self._seen[number])

    def _see(self, number: int) -> None:
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 4_096 - len(self._seen)))
        self._seen[number] = 1


class _Watched(Report):
    """Passes everything on, and remembers what was wrong with which source.

    What ended the reading of a file is passed on by `finish`, with what that means for the index.
    ``known`` gives a source's stamp and kind; None prunes what is not what it was.
    """

    def __init__(self, report: Report, known: Callable[[str], tuple[str, str]] | None) -> None:
        super().__init__()
        self._report, self._known, self.prune = report, known, known is None
        self.faulty: set[str] = set()
        self.passing: set[str] = set()  # of these, what is out of reach
        self.fault: Skipped | None = None
        self.kind = self._reading = ""

    def __call__(self, skipped: Skipped) -> None:
        if skipped.source and not skipped.note:
            self.faulty.add(skipped.source)
            if skipped.passing:
                self.passing.add(skipped.source)
        if skipped.whole and skipped.source == self._reading:
            self.fault = skipped
        else:
            self._report(skipped)

    def begin(self, file: SourceFile) -> None:
        """Expect what there is to say about a file."""
        self.fault, self.kind, self._reading = None, "", file.source

    def reads(self, source: str, like: str, named: bool) -> None:
        """Remember what a file is like; Unreadable where the index has something else of it.

        What its name says (``named``) takes the place of anything else.
        """
        before = self._known(source)[1] if self._known else ""
        if before and like and before != like and not named:
            raise Unreadable(f"now {NAMES.get(like, like)}")
        self.kind = like

    def finish(self, file: SourceFile, kept: int) -> None:
        """Pass on what ended the reading, if anything did, and that ``kept`` documents stay."""
        fault, self._reading = self.fault, ""
        if kept:
            place = shown(file.path)
            fault = fault or Skipped(place, "no documents in it", file.source, whole=True)
            how = "" if fault.passing else f" (--prune removes {'it' if kept == 1 else 'them'})"
            fault = replace(fault, reason=f"{fault.reason}; {_documents(kept)} kept{how}")
        if fault:
            self(fault)


def _documents(count: int) -> str:
    return "1 document of it is" if count == 1 else f"{count:,} documents of it are"


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _parts(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), BATCH):
        yield numbers[start : start + BATCH]
