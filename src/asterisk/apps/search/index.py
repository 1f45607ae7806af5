"""The index: one SQLite file of documents, passages, words and vectors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from asterisk.apps.search import database
from asterisk.apps.search.database import IndexSettings, sqlite_errors
from asterisk.apps.search.passages import fit_lengths
from asterisk.apps.search.query import Hit, Words, run_query
from asterisk.apps.search.store import Blocks, Floats, Ids, read_document
from asterisk.artifact import InSpace, is_artifact, open_artifact, share_space, spaces
from asterisk.common.errors import InputError, OutputError, UsageError
from asterisk.model.config import prompt_name_of
from asterisk.sources import Document, Options, Report

if TYPE_CHECKING:
    from asterisk.apps.search.update import Changes, Update
    from asterisk.runtimes.runtime import Runtime

Mode = Literal["hybrid", "vectors", "words"]
Precision = Literal["float32", "int8"]
Progress = Callable[[int], None]
MOST_SPACES = 200


class Index:
    """An opened index, by `create` or `open`; one thread at a time. A context manager."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, resources: contextlib.ExitStack
    ) -> None:
        """Take over a connection whose schema has been checked; `close` closes ``resources``."""
        self.path, self.connection, self._resources = path, connection, resources
        self.settings = IndexSettings.read(connection, path)
        self.blocks = Blocks(connection, self.settings.dimension, self.settings.precision)
        self.blocks.check()
        self.words = Words(connection) if self.settings.words else None

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
        """Open an index to write; a new one, for the vectors of ``artifact``, if there is none.

        A checkpoint folder needs its ``runtime``; ``precision`` is "int8" by default.
        ``prompt_name`` names the prompt of documents (None: that of `Runtime.encode_document`).
        OutputError where it cannot be written, as by a second writer; InputError where it is
        something else or of another embedding space, UsageError where it has another precision or
        prompt.
        """
        path = Path(os.path.realpath(path))
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: no such folder")
        if not database.is_file(path) and artifact is None:
            raise UsageError(f"{path} does not exist yet: say which artifact it is for")
        wanted = None
        if artifact is not None:
            wanted = IndexSettings.from_artifact(Path(artifact), precision, runtime, prompt_name)
        with contextlib.ExitStack() as resources:
            resources.enter_context(database.writer_lock(path))
            with sqlite_errors(path, writing=True):
                connection = database.connect(path, "mode=rwc")
                resources.callback(connection.close)
                if not database.check_schema(connection, path):
                    if wanted is None:
                        raise UsageError(f"{path} is empty: say which artifact it is for")
                    connection.execute(f"PRAGMA page_size={database.PAGE}")
                    connection.execute("PRAGMA journal_mode=WAL")
                    with database.transaction(connection):
                        words = database.create_tables(connection)
                        replace(wanted, words=words).write(connection)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                index = cls(path, connection, resources)
                index._check_wanted(wanted, precision, prompt_name)
            resources.callback(_end_log, connection)
            index._resources = resources.pop_all()
        return index

    def _check_wanted(
        self, wanted: IndexSettings | None, precision: str | None, prompt_name: str | None
    ) -> None:
        """Check what the user asks for against the settings, and store the artifact's new name."""
        settings, path, again = self.settings, self.path, "index again into a new file"
        if wanted:
            self.check(wanted, wanted.dimension)
        made = settings.prompt_name
        if prompt_name not in {None, made}:
            how = f"with the prompt {made!r}" if made else "without a prompt's name"
            raise UsageError(f"{path} was made {how}, not with {prompt_name!r}: {again}")
        stored = settings.precision
        if precision not in {None, stored}:
            raise UsageError(f"{path} holds {stored} vectors, not {precision}: {again}")
        if self.words is not None and not self.words.usable:
            raise InputError(f"{path} has a table of words, and this SQLite is built without FTS5")
        if wanted and wanted.artifact != settings.artifact:
            names = ("artifact", "model", "format", "recipe")
            self._write(replace(settings, **{name: getattr(wanted, name) for name in names}))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], artifact: str | os.PathLike[str] | None = None
    ) -> Self:
        """Open an index for reading; a writer does not block it.

        InputError unless the file is a sound index, compatible with ``artifact`` if one is given.
        """
        path = Path(os.path.realpath(path))
        if not database.is_file(path):
            raise InputError(f"{path} does not exist; make it with asterisk-search index")
        with sqlite_errors(path), contextlib.ExitStack() as resources:
            connection = database.connect_to_read(path)
            resources.callback(connection.close)
            if not database.check_schema(connection, path):
                raise InputError(f"{path} is empty; fill it with asterisk-search index")
            index = cls(path, connection, resources)
            if artifact is not None and is_artifact(Path(artifact)):
                manifest = open_artifact(Path(artifact)).manifest
                index.check(manifest, manifest.model.embedding_size)
            connection.execute("PRAGMA query_only=ON")
            index._resources = resources.pop_all()
        return index

    @property
    def artifact(self) -> Path:
        """The artifact that the index was last written with."""
        return Path(os.fsdecode(self.settings.artifact.encode("utf-8", "surrogateescape")))

    @property
    def fingerprint(self) -> str:
        """The embedding space of its vectors."""
        return self.settings.fingerprint

    @property
    def dimension(self) -> int:
        """Elements of a vector."""
        return self.settings.dimension

    @property
    def documents(self) -> int:
        """How many documents the index has."""
        return self._count("documents")

    @property
    def passages(self) -> int:
        """How many passages the index has."""
        return self._count("passages")

    @property
    def sources(self) -> int:
        """How many files or databases the documents are from."""
        return self._count("sources")

    def _count(self, table: str) -> int:
        with sqlite_errors(self.path):
            (count,) = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        return int(count)

    def check(self, model: InSpace, dimension: int) -> None:
        """Raise InputError unless the index shares a space and the dimension with ``model``."""
        settings, own = self.settings, self.dimension
        if not share_space(spaces(settings), spaces(model)):
            advice = f"use --artifact {settings.artifact}, or index again into a new file"
            another = f"holds vectors of another model ({settings.model})"
            raise InputError(f"{self.path} {another}: {advice}")
        if dimension != own:
            sizes = f"{own} dimensions, the model gives {dimension}"
            raise InputError(f"{self.path} holds vectors of {sizes}")

    def declare(self, others: Iterable[str], dimension: int | None = None) -> None:
        """Let the index, opened by `create`, go with the spaces ``others`` as well.

        InputError where ``dimension``, the size of their vectors if known, is another one.
        """
        settings = self.settings
        if dimension is not None:
            self.check(settings, dimension)
        every = (*settings.compatible_with, *others)
        compatible_with = spaces(replace(settings, compatible_with=every))[1:]
        if len(compatible_with) > MOST_SPACES:
            raise UsageError(f"{len(compatible_with)} spaces; an index has {MOST_SPACES} at most")
        self._write(replace(settings, compatible_with=compatible_with))

    def _write(self, settings: IndexSettings) -> None:
        if settings != self.settings:
            with sqlite_errors(self.path, writing=True), database.transaction(self.connection):
                settings.write(self.connection)
            self.settings = settings

    def update(
        self, documents: Iterable[Document], runtime: Runtime, progress: Progress | None = None
    ) -> Changes:
        """Make the index hold ``documents``, all of them and nothing else, embedding what is new.

        A document is identified by source and key, and new if its digest is. ``progress`` gets the
        number of documents finished since the last call. Committed in batches: what interrupts it
        leaves a whole index, and the next update goes on from there.
        """
        with self._updating(runtime, progress) as update:
            update.replace_all(documents)
        return update.changes

    def update_files(
        self,
        paths: Sequence[Path],
        runtime: Runtime,
        options: Options | None = None,
        report: Report | None = None,
        progress: Progress | None = None,
        *,
        prune: bool = False,
    ) -> Changes:
        """Make the index hold the documents under ``paths``; those from elsewhere stay.

        Files with the stored stamp are not read, and files that were removed leave. Of a file that
        became unreadable, empty, cut off or something else, the documents stay, unless ``prune`` is
        true; that is reported. Errors are those of `asterisk.sources.scan`.
        """
        with self._updating(runtime, progress) as update:
            update.update_files(paths, options or Options(), report or Report(), prune=prune)
        return update.changes

    @contextlib.contextmanager
    def _updating(self, runtime: Runtime, progress: Progress | None) -> Iterator[Update]:
        from asterisk.apps.search.update import Update

        self.check(runtime, runtime.config.embedding_size)
        name = self.settings.prompt_name
        if name is None:
            name = prompt_name_of("document", runtime.prompts)
        prompt = runtime.tokenizer.encode(runtime.prompt(name), runtime.longest)
        room = runtime.longest - len(runtime.tokenizer.with_special_tokens(prompt))
        lengths = fit_lengths(room, self.settings.longest, self.settings.overlap)
        self._write(replace(self.settings, longest=lengths.longest, overlap=lengths.overlap))
        with (
            sqlite_errors(self.path, writing=True, foreign=True),
            Update(self, lengths, runtime, progress) as update,
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

        ``runtime`` may be None in mode "words"; it embeds ``text`` by `Runtime.encode_query`.
        UsageError for arguments that cannot be meant, InputError for an empty text or a runtime of
        another embedding space.
        """
        with sqlite_errors(self.path):
            return run_query(self, text, k, runtime, mode, prompt_name)

    def vectors(self) -> Iterator[tuple[Ids, Floats]]:
        """Yield ids of passages, int64 [n <= 1,024], and unit vectors, float32 [n, dimension]."""
        with sqlite_errors(self.path):
            yield from self.blocks.read()

    def passage(self, passage: int) -> tuple[Document, str]:
        """Return the document and the text of a passage; InputError for an id that is none."""
        with sqlite_errors(self.path):
            found = read_document(self.connection, int(passage))
        if found is None:
            raise InputError(f"{self.path} has no passage {passage}")
        document, start, end = found
        return document, document.text[start:end]

    def close(self) -> None:
        """Close the file; a writer's lock ends with it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end_log(connection: sqlite3.Connection) -> None:
    """Leave no write-ahead log, with which a query would need a file beside the index."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout=100")
        connection.execute("PRAGMA journal_mode=DELETE")
