"""What every reader gives: documents, and one line for each thing that is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asterisk.common.digest import sha256
from asterisk.common.errors import InputError
from asterisk.common.terminal import escaped

# NUL parts a title from its text in the digest, and ends strings in native code.
MOST_LINES = 20
_UNFIT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """One text: the file it came from, what tells it apart there, and its digest.

    ``source`` is the file's absolute path in printable characters (see `scan.shown`); ``key`` is
    unique within it: an id, guid or record number, and "" for a whole file. ``text`` is never
    blank: a document with nothing but a title has it as its text. ``title`` may be "", and so may
    ``date`` (ISO 8601, in UTC where it has a time) and ``author``. None of them holds a NUL or a
    lone surrogate; where one stood there is U+FFFD.
    """

    source: str
    key: str
    title: str
    text: str
    digest: str
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that gives no document: where it stands, why, and which source it belongs to.

    ``source`` equals that of `SourceFile` and `Document`, or is the name of a folder that cannot be
    listed, whose files may still be there; it is "" for what never was a source. ``whole`` tells
    that the file or folder, or the rest of it, was skipped, ``passing`` that it is out of reach:
    what was read there before need not be gone. ``note`` tells that nothing was skipped, but read
    in a way that the file does not say.
    """

    place: str
    reason: str
    source: str = ""
    whole: bool = False
    passing: bool = False
    note: bool = False

    def __str__(self) -> str:
        return escaped(f"{self.place}: {self.reason}")


class Unreadable(InputError):
    """Why a file, or the rest of it, gives no documents; readers raise it and `read` reports it.

    ``passing`` as `Skipped` has it.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Report:
    """Takes what was skipped: counts it and shows each as one line.

    Of one source the first `MOST_LINES` are shown, then how many more there were. ``strict``
    raises InputError at the first one instead.
    """

    def __init__(self, show: Callable[[str], None] | None = None, *, strict: bool = False) -> None:
        self.show, self.strict, self.count = show, strict, 0
        self._last = Skipped("", "")
        self._shown = self._more = 0

    def __call__(self, skipped: Skipped) -> None:
        """Take one; a note is shown, and neither counted nor an error."""
        self.count += not skipped.note
        if self.strict and not skipped.note:
            raise InputError(str(skipped))
        if not skipped.source or skipped.source != self._last.source:
            self._tell_more()
            self._last, self._shown = skipped, 0
        if self._shown >= MOST_LINES:
            self._more += 1
            return
        self._shown += 1
        if self.show is not None:
            self.show(str(skipped))

    def reads(self, source: str, like: str, named: bool) -> None:
        """Take note of what a file's content is like; Unreadable leaves the file unread.

        ``named`` tells that the file's name says the same.
        """

    def _tell_more(self) -> None:
        if self._more and self.show is not None:
            self.show(f"{self._last.source}: {self._more:,} more")
        self._more = 0

    def summary(self) -> str:
        """Return the count in words, or "" when nothing was skipped; call it at the end."""
        self._tell_more()
        return f"{self.count:,} skipped" if self.count else ""


def digest(title: str, text: str, *more: str) -> str:
    """Return the sha256, in hexadecimal, of title, text and what else there is, in UTF-8.

    NULs part them; without ``more`` it is that of title, NUL and text.
    """
    state = sha256()
    state.update("\0".join((title, text, *more)).encode())
    return str(state.hexdigest())


def fit(text: str) -> str:
    """Return ``text`` with each NUL and lone surrogate replaced by U+FFFD."""
    return text if text.isascii() and "\0" not in text else _UNFIT.sub("\ufffd", text)


def made(  # noqa: PLR0917 - as in `Document`, so that a `Piece` gives them in order
    source: str,
    key: str,
    title: str,
    text: str,
    date: str = "",
    author: str = "",
    tags: Sequence[str] = (),
) -> Document | None:
    """Return a document with its digest; None if neither title nor text say anything."""
    title, text = _line(title), fit(text).strip()
    text = text or title
    if not text:
        return None
    date, author = _line(date), _line(author)
    tags = tuple(dict.fromkeys(tag for given in tags if (tag := _line(given))))
    more = (date, author, *tags) if date or author or tags else ()
    return Document(source, key, title, text, digest(title, text, *more), date, author, tags)


def _line(text: str) -> str:
    return " ".join(fit(text).split())
