"""The index: one SQLite file of documents, passages, words and vectors."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from asterisk.apps.search import connection as connections
from asterisk.apps.search import schema
from asterisk.apps.search.blocks import Blocks
from asterisk.apps.search.connection import sqlite_errors
from asterisk.apps.search.facts import Facts
from asterisk.apps.search.hit import Hit
from asterisk.apps.search.lock import WriterLock
from asterisk.apps.search.passages import lengths
from asterisk.apps.search.query import Query
from asterisk.apps.search.store import read_tags
from asterisk.apps.search.words import Words
from asterisk.artifact import InSpace, is_artifact, open_artifact, spaces
from asterisk.common.errors import InputError, UsageError
from asterisk.common.validation import integer
from asterisk.model.prompt_names import prompt_name_of
from asterisk.sources.document import Document

if TYPE_CHECKING:
    from asterisk.apps.search.update import Changes, Update
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Options, Report

Mode = Literal["hybrid", "vectors", "words"]
Precision = Literal["float32", "int8"]
MODES: tuple[Mode, ...] = ("hybrid", "vectors", "words")


class Index:
    """An opened index; one thread at a time. A context manager.

    ``path`` is the file, ``facts`` what it was made with; `documents` and `passages` count.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None = None
    ) -> None:
        """Take over an open connection whose schema has been checked; see `create` and `open`."""
        self.path, self.connection = path, connection
        self.facts = Facts.read(connection, path)
        self.blocks = Blocks(connection, self.facts.dimension, self.facts.precision)
        self.blocks.check()
        self.words = Words(connection) if self.facts.words else None
        self._lock = lock

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        artifact: str | os.PathLike[str] | None = None,
        *,
        precision: Precision | None = None,
        runtime: Runtime | None = None,
        prompt_name: str | None = None,
    ) -> Self:
        """Make a new index for the vectors of ``artifact``, or open one that is there, to write.

        ``artifact`` may be left out for one that is there, ``precision`` is "int8" unless said.
        ``prompt_name`` names the prompt that documents get, remembered in the file; without one
        they are embedded by `Runtime.encode_document`. ``runtime`` is needed for a checkpoint
        folder only. OutputError where another process is writing it or it cannot be written;
        InputError where the file is something else or of another embedding space, UsageError
        where it has another precision or prompt.
        """
        place = Path(os.path.realpath(path))
        if not place.parent.is_dir():
            raise connections.no_folder(place)
        there = connections.check_file(place, missing=True)
        if not there and artifact is None:
            raise UsageError(f"{place} does not exist yet: say which artifact it is for")
        wanted = None
        if artifact is not None:
            wanted = Facts.of(Path(artifact), precision or "int8", runtime, prompt_name)
        lock = WriterLock(place)
        try:
            with sqlite_errors(place, writing=True):
                connection = connections.to_write(place)
                try:
                    return cls._made(
                        place,
                        connection,
                        lock,
                        wanted,
                        precision=precision,
                        prompt_name=prompt_name,
                    )
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _made(
        cls,
        path: Path,
        connection: sqlite3.Connection,
        lock: WriterLock,
        wanted: Facts | None,
        *,
        precision: Precision | None,
        prompt_name: str | None,
    ) -> Self:
        if schema.is_blank(connection):
            if wanted is None:
                raise UsageError(f"{path} is empty: say which artifact it is for")
            connection.execute(f"PRAGMA page_size={schema.PAGE}")
            connection.execute("PRAGMA journal_mode=WAL")
            with connections.transaction(connection):
                words = schema.make(connection)
                dataclasses.replace(wanted, words=words).write(connection)
        schema.check(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        index = cls(path, connection, lock)
        if wanted is not None:
            index.check(wanted, wanted.dimension)
        if prompt_name not in (None, index.facts.prompt_name):
            made = index.facts.prompt_name
            how = f"with the prompt {made!r}" if made else "without a prompt's name"
            raise UsageError(
                f"{path} was made {how}, not with {prompt_name!r}: index again into a new file"
            )
        if precision is not None and precision != index.facts.precision:
            raise UsageError(
                f"{path} holds {index.facts.precision} vectors, not {precision}: "
                "index again into a new file"
            )
        if index.words is not None and not index.words.usable:
            raise InputError(f"{path} has a table of words, and this SQLite is built without FTS5")
        if wanted is not None and wanted.artifact != index.facts.artifact:
            index._write(
                dataclasses.replace(
                    index.facts,
                    artifact=wanted.artifact,
                    model=wanted.model,
                    format=wanted.format,
                    recipe=wanted.recipe,
                )
            )
        return index

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], artifact: str | os.PathLike[str] | None = None
    ) -> Self:
        """Open an index for reading; a writer does not block it.

        ``artifact`` allows another artifact than the one it was made with, if the two are
        compatible. InputError unless the file is a sound index.
        """
        place = Path(os.path.realpath(path))
        connections.check_file(place, missing=False)
        with sqlite_errors(place):
            connection = connections.to_read(place)
            try:
                schema.check_used(connection, place)
                index = cls(place, connection)
                if artifact is not None and is_artifact(Path(artifact)):
                    manifest = open_artifact(Path(artifact)).manifest
                    index.check(manifest, manifest.model.embedding_size)
                connection.execute("PRAGMA query_only=ON")
            except BaseException:
                connection.close()
                raise
        return index

    @property
    def artifact(self) -> Path:
        """The artifact that the index was last written with."""
        return Path(os.fsdecode(self.facts.artifact.encode("utf-8", "surrogateescape")))

    @property
    def fingerprint(self) -> str:
        """The embedding space of its vectors."""
        return self.facts.fingerprint

    @property
    def dimension(self) -> int:
        """Elements of a vector."""
        return self.facts.dimension

    @property
    def precision(self) -> str:
        """What an element is stored as, "int8" or "float32"."""
        return self.facts.precision

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return self._count("documents")

    @property
    def passages(self) -> int:
        """How many passages there are."""
        return self._count("passages")

    @property
    def sources(self) -> int:
        """How many files or databases the documents are from."""
        return self._count("sources")

    def check(self, model: InSpace, dimension: int) -> None:
        """Raise InputError unless the index goes with ``model``, whose vectors have this size.

        The two go together where their `spaces` have a member in common.
        """
        self.facts.check(self.path, spaces(model), dimension)

    def declare(self, others: Iterable[str], dimension: int | None = None) -> None:
        """Let the index go with the spaces ``others`` as well, for an index opened by `create`.

        InputError where ``dimension``, the size of their vectors, is known and is another one.
        """
        if dimension not in (None, self.dimension):
            raise InputError(
                f"{self.path} holds vectors of {self.dimension} dimensions, "
                f"the model gives {dimension}"
            )
        self._write(self.facts.declaring(others))

    def _write(self, facts: Facts) -> None:
        if facts != self.facts:
            with sqlite_errors(self.path, writing=True), connections.transaction(self.connection):
                facts.write(self.connection)
            self.facts = facts

    def update(
        self,
        documents: Iterable[Document],
        runtime: Runtime,
        progress: Callable[[int], None] | None = None,
    ) -> Changes:
        """Make the index hold ``documents``, all of them and nothing else, embedding what is new.

        A document is known by source and key, and new if its digest is. ``progress`` is called with
        the number of documents that are done with since the last call. Committed in batches: what
        interrupts it leaves a whole index, and the next update goes on from there.
        """
        with self._update(runtime, progress) as update:
            update.all(documents)
        return update.changes

    def update_files(
        self,
        paths: Sequence[Path],
        runtime: Runtime,
        options: Options | None = None,
        report: Report | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        prune: bool = False,
    ) -> Changes:
        """Make the index hold the documents under ``paths``; what lies elsewhere stays.

        Files whose stamp is known are not read, and files that were removed leave. Of a file that
        became unreadable, empty, cut off or something else, the documents stay until it is whole
        again, unless ``prune`` is true; that is reported. Errors are those of
        `asterisk.sources.scan`; committed as by `update`.
        """
        with self._update(runtime, progress) as update:
            update.files(paths, options, report, prune=prune)
        return update.changes

    @contextlib.contextmanager
    def _update(self, runtime: Runtime, progress: Callable[[int], None] | None) -> Iterator[Update]:
        from asterisk.apps.search.update import Update

        self.check(runtime, runtime.config.embedding_size)
        name = self.facts.prompt_name
        if name is None:
            name = prompt_name_of("document", runtime.prompts)
        prompt = runtime.tokenizer.encode(runtime.prompt(name), runtime.longest)
        taken = len(runtime.tokenizer.with_special_tokens(prompt))
        fitting = lengths(runtime.longest - taken, self.facts.longest, self.facts.overlap)
        self._write(
            dataclasses.replace(self.facts, longest=fitting.longest, overlap=fitting.overlap)
        )
        parts = self.path, self.connection, self.facts, self.blocks
        with (
            sqlite_errors(self.path, writing=True, foreign=True),
            Update(*parts, fitting, runtime=runtime, progress=progress) as update,
        ):
            yield update

    def search(
        self,
        text: str,
        k: int,
        runtime: Runtime | None,
        mode: Mode = "hybrid",
        prompt_name: str | None = None,
    ) -> list[Hit]:
        """Return the ``k`` best documents for ``text``, best first, fewer if there are fewer.

        ``runtime`` may be None in mode "words"; it embeds ``text`` by `Runtime.encode_query`, with
        its prompt called ``prompt_name`` if given. UsageError for arguments that cannot be meant,
        InputError for an empty text or a runtime of another embedding space.
        """
        if not isinstance(text, str):
            raise UsageError(f"a query must be a string, not {type(text).__name__}")
        if mode not in MODES:
            raise UsageError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        k = integer("k", k, 1)
        if not text.strip():
            raise InputError("an empty query finds nothing")
        words = self.words if self.words is not None and self.words.usable else None
        if mode == "words" and words is None:
            raise UsageError("there are no words: SQLite is built without FTS5; use --mode vectors")
        if mode != "words":
            if runtime is None:
                raise UsageError(f"mode {mode} needs a runtime")
            self.check(runtime, runtime.config.embedding_size)
        query = Query(self.connection, self.blocks, words)
        with sqlite_errors(self.path):
            return query.run(text.replace("\0", " "), k, runtime, mode, prompt_name)

    def vectors(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield passage ids, int64 [n], with their unit vectors, float32 [n, dimension], in blocks.

        At most 1,024 rows a block, in no order that means anything.
        """
        with sqlite_errors(self.path):
            yield from self.blocks.read()

    def passage(self, passage: int) -> tuple[Document, str]:
        """Return the document that a passage id belongs to, and the passage's own text.

        InputError for an id that is not there.
        """
        with sqlite_errors(self.path):
            row = self.connection.execute(
                "SELECT s.path, d.key, d.title, d.text, d.digest, d.date, d.author, d.tags, "
                "p.start, p.end "
                "FROM passages AS p JOIN documents AS d ON d.id = p.document "
                "JOIN sources AS s ON s.id = d.source WHERE p.id = ?",
                (int(passage),),
            ).fetchone()
        if row is None:
            raise InputError(f"{self.path} has no passage {passage}")
        source, key, title, text, digest, date, author, tags, start, end = row
        about = date, author, read_tags(tags)
        return Document(source, key, title, text, bytes(digest).hex(), *about), text[start:end]

    def close(self) -> None:
        """Close the file; a writer's lock ends with it."""
        if self._lock is not None:
            # Without a log, a query needs no file beside the index and leaves none behind. Readers
            # of this moment keep the log; then the next writer removes it.
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("PRAGMA busy_timeout=100")
                self.connection.execute("PRAGMA journal_mode=DELETE")
        self.connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _count(self, table: str) -> int:
        with sqlite_errors(self.path):
            (count,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        return int(count)
