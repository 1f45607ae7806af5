"""Documents, reports of what gives none, and the options by which sources are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asterisk.common.digest import sha256
from asterisk.common.errors import InputError
from asterisk.common.terminal import escaped

KINDS = ("text", "lines", "markdown", "html", "pdf", "jsonl", "tsv", "csv", "feed")
MOST_LINES = 20  # of one source that a report shows
# NUL parts a title from its text in the digest, and ends strings in native code.
_UNFIT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Database:
    """A SQLite file and the query whose rows are documents."""

    path: Path
    query: str


@dataclass(frozen=True, slots=True)
class Options:
    """How sources are found and read."""

    kind: str | None = None  # None decides file by file, by name and first bytes
    lines: bool = False  # each line of plain text is a document
    encoding: str | None = None  # of files that are not UTF-8 and do not say what they are
    # JSON members, or columns of a table or query (from 1 where they are numbers).
    field: str | None = None
    title_field: str | None = None
    id_field: str | None = None
    header: bool | None = None
    include: tuple[str, ...] = ()  # globs over names and paths
    exclude: tuple[str, ...] = ()
    follow: bool = False
    hidden: bool = False
    databases: tuple[Database, ...] = ()
    largest_file: int = 64 << 20  # bytes that are read as a whole
    longest_text: int = 8 << 20  # characters; a longer document is refused, never cut
    query_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Document:
    """One text, where it is from, and its digest; NULs and lone surrogates are U+FFFD."""

    source: str  # the file's absolute path in printable characters (`scan.source_name`)
    key: str  # unique within it: an id, guid or record number; "" for a whole file
    title: str
    text: str  # never blank: without a text of its own it is the title
    digest: str
    date: str = ""  # ISO 8601, in UTC where it has a time
    author: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that gives no document."""

    position: str
    reason: str
    source: str  # as of a `Document`, of folders too
    temporary: bool = False  # it is out of reach, and what was read from it before may still exist
    note: bool = False  # nothing was skipped, but read in a way that the file does not say

    def __str__(self) -> str:
        return escaped(f"{self.position}: {self.reason}")


class Unreadable(InputError):
    """Why a file, or the rest of it, gives no documents; ``temporary`` as in `Skipped`."""

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.temporary = temporary


class Report:
    """Counts what was skipped, and shows each as one line, `MOST_LINES` of one source at most.

    ``strict`` raises InputError at the first one instead. ``unreachable`` are the temporary ones.
    """

    def __init__(self, show: Callable[[str], None] | None = None, *, strict: bool = False) -> None:
        self.show, self.strict, self.count = show or (lambda _: None), strict, 0
        self.unreachable: set[str] = set()
        self._source, self._shown, self._hidden = "", 0, 0

    def __call__(self, skipped: Skipped) -> None:
        """Take one; a note is shown, and neither counted nor an error."""
        self.count += not skipped.note
        if skipped.temporary:
            self.unreachable.add(skipped.source)
        if self.strict and not skipped.note:
            raise InputError(str(skipped))
        if skipped.source != self._source:
            self._show_rest()
            self._source, self._shown = skipped.source, 0
        if self._shown >= MOST_LINES:
            self._hidden += 1
        else:
            self._shown += 1
            self.show(str(skipped))

    def summary(self) -> str:
        """Return the count in words, or "" when nothing was skipped; call it at the end."""
        self._show_rest()
        return f"{self.count:,} skipped" if self.count else ""

    def _show_rest(self) -> None:
        if self._hidden:
            self.show(f"{self._source}: {self._hidden:,} more")
        self._hidden = 0


def digest(title: str, text: str, *more: str) -> str:
    """Return the sha256, in hexadecimal, of all strings in UTF-8, with NULs between."""
    state = sha256()
    state.update("\0".join((title, text, *more)).encode())
    return str(state.hexdigest())


def clean(text: str) -> str:
    """Return ``text`` with each NUL and lone surrogate replaced by U+FFFD."""
    return text if text.isascii() and "\0" not in text else _UNFIT.sub("\ufffd", text)


def make_document(  # noqa: PLR0917 - in the order of `Document` and `Piece`
    source: str,
    key: str,
    title: str,
    text: str,
    date: str = "",
    author: str = "",
    tags: Sequence[str] = (),
) -> Document | None:
    """Return a document with its digest; None where both title and text are blank."""
    title, date, author = (" ".join(clean(value).split()) for value in (title, date, author))
    text = clean(text).strip() or title
    if not text:
        return None
    names = (" ".join(clean(tag).split()) for tag in tags)
    tags = tuple(dict.fromkeys(filter(None, names)))
    more = (date, author, *tags) if date or author or tags else ()
    return Document(source, key, title, text, digest(title, text, *more), date, author, tags)
