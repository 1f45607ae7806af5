"""What a feed's elements mean, as expat tells them one by one."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator

from asterisk.sources.document import Unreadable
from asterisk.sources.markup import page
from asterisk.sources.opening import Piece

DEEPEST = 256
MOST_NAMES = 10_000  # different ones; expat keeps each for good
MOST_ENTRIES = 1_000_000
_ATOM = ("http://www.w3.org/2005/Atom", "http://purl.org/atom/ns#")
_RSS = ("", "http://purl.org/rss/1.0/", "http://my.netscape.com/rdf/simple/0.9/")
_ROOTS = {"rss", "RDF", "feed"}
_ABOUT = "http://www.w3.org/1999/02/22-rdf-syntax-ns# about"
_FIELDS = {
    **{(space, name): name for space in _RSS for name in ("title", "guid", "link")},
    **{(space, "description"): "summary" for space in _RSS},
    ("http://purl.org/rss/1.0/modules/content/", "encoded"): "content",
    **{(space, name): name for space in _ATOM for name in ("title", "link", "summary", "content")},
    **{(space, "id"): "guid" for space in _ATOM},
}


class Entries:
    """Handlers for expat; `taken` gives the entries that are complete so far."""

    def __init__(self, skip: Callable[[str, str], None], longest: int) -> None:
        self.skip, self.longest = skip, longest
        self.number = 0  # entries begun
        self.complete = 0
        self.alive = False  # whether anything was told since this was last cleared
        self._done: list[Piece] = []
        self._names: set[str] = set()
        self._depth = 0
        self._entry: dict[str, str] | None = None
        self._entry_depth = 0
        self._field: _Field | None = None
        self._too_long = False

    def taken(self) -> Iterator[Piece]:
        """Yield the complete entries, once."""
        done, self._done = self._done, []
        yield from done

    def other(self, _: str) -> None:
        """Take a comment."""
        self.alive = True

    def namespace(self, prefix: str | None, _: str | None) -> None:
        """Count a prefix."""
        self._count(f"xmlns:{prefix}")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take a start tag."""
        self.alive = True
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable(f"nested deeper than {DEEPEST}")
        self._count(name)
        for attribute in attributes:
            self._count(attribute)
        space, _, local = name.rpartition(" ")
        if self._depth == 1 and local not in _ROOTS:
            raise Unreadable("XML, but no RSS or Atom feed")
        if self._entry is None:
            if local in {"item", "entry"} and space in (*_RSS, *_ATOM):
                self._open(attributes)
        elif self._field is not None:
            self._field.tag(f"<{local}>")
        elif self._depth == self._entry_depth + 1 and (space, local) in _FIELDS:
            self._begin(_FIELDS[space, local], space in _ATOM, attributes)

    def characters(self, data: str) -> None:
        """Take text."""
        self.alive = True
        if self._field is not None and not self._too_long:
            self._field.characters(data)
            if self._field.length > 4 * self.longest:
                self._field.parts.clear()
                self._too_long = True

    def end(self, name: str) -> None:
        """Take an end tag."""
        self.alive = True
        if self._entry is not None:
            if self._field is not None and self._depth == self._entry_depth + 1:
                said = self._field.said()
                if said:
                    self._entry.setdefault(self._field.name, said)
                self._field = None
            elif self._field is not None:
                self._field.tag(f"</{name.rpartition(' ')[2]}>")
            elif self._depth == self._entry_depth:
                self._close(self._entry)
                self._entry = None
        self._depth -= 1

    def _count(self, name: str) -> None:
        self._names.add(name)
        if len(self._names) > MOST_NAMES:
            raise Unreadable(f"more than {MOST_NAMES:,} different names of elements")

    def _open(self, attributes: dict[str, str]) -> None:
        if self.number >= MOST_ENTRIES:
            raise Unreadable(f"more than {MOST_ENTRIES:,} entries")
        self.number += 1
        self._entry, self._entry_depth, self._too_long = {}, self._depth, False
        if _ABOUT in attributes:
            self._entry["about"] = attributes[_ABOUT]

    def _begin(self, field: str, atom: bool, attributes: dict[str, str]) -> None:
        link = attributes.get("href", "").strip() if field == "link" else ""
        if link and self._entry is not None and attributes.get("rel", "alternate") == "alternate":
            self._entry.setdefault("link", link)
        self._field = _Field(field, _form(field, atom, attributes))

    def _close(self, entry: dict[str, str]) -> None:
        place = f"entry {self.number}"
        if self._too_long:
            self.skip(place, f"longer than {4 * self.longest:,} characters with its markup")
            return
        key = entry.get("guid") or entry.get("about") or entry.get("link") or str(self.number)
        text = entry.get("content") or entry.get("summary") or ""
        self.complete += 1
        self._done.append(Piece(place, key, entry.get("title", ""), text))


class _Field:
    """One part of an entry while it is read; ``form`` is "text", "html", "xhtml" or "none"."""

    def __init__(self, name: str, form: str) -> None:
        self.name, self.form = name, form
        self.parts: list[str] = []
        self.length = 0

    def characters(self, data: str) -> None:
        if self.form == "none":
            return
        self.length += len(data)
        self.parts.append(html.escape(data, quote=False) if self.form == "xhtml" else data)

    def tag(self, tag: str) -> None:
        """Take markup that is not escaped: what XHTML consists of, and broken feeds hold."""
        self.length += len(tag)
        self.parts.append(" " if self.form == "text" else tag)

    def said(self) -> str:
        if self.form == "none":
            return ""
        value = "".join(self.parts)
        return value.strip() if self.form == "text" else page(value).text


def _form(field: str, atom: bool, attributes: dict[str, str]) -> str:
    """Return how a field is written (RFC 4287, 3.1 and 4.1.3; RSS has HTML by custom)."""
    if field in {"guid", "link"}:
        return "text"
    if not atom:
        return "html"
    given = attributes.get("type", "text").lower().strip()
    if given in {"text", "text/plain"}:
        return "text"
    if given in {"html", "text/html"}:
        return "html"
    return "xhtml" if given == "xhtml" or given.endswith(("+xml", "/xml")) else "none"
