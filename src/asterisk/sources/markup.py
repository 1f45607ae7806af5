"""HTML to text, in time and memory that grow with its length only.

`html.parser` is not used: in many Pythons that people run, unclosed comments and tags cost it time
with the square of their number. This scanner keeps no stack, so that nesting costs nothing.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

# Everything up to the end tag is dropped.
_DROPPED = {
    "iframe", "math", "nav", "noembed", "noframes", "noscript", "object", "script", "select",
    "style", "svg", "template", "textarea",
}  # fmt: skip
_RAW = {"script", "style", "iframe", "noembed", "noframes", "textarea"}  # no element within
_BLOCK = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "details", "dialog",
    "div", "dl", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3",
    "h4", "h5", "h6", "head", "header", "hgroup", "hr", "html", "legend", "main", "ol", "p", "pre",
    "section", "summary", "table", "tbody", "tfoot", "thead", "ul",
}  # fmt: skip
_LINE = {"dd", "dt", "li", "option", "tr"}
_CELL = {"td", "th"}
_NAME = re.compile(r"[a-zA-Z][^\s/>]*")
_PLAIN_TAG = re.compile(r"""[^<>"'=]*>""")
_GAP = re.compile(r"[\s/]*")
_ATTRIBUTE = re.compile(r"=?[^\s/>=]*")
_EQUALS = re.compile(r"\s*=\s*")
_BARE = re.compile(r"[^\s>]*")
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(r" ?[\n\r][ \n\r]*")  # "\r" stands for a line's beginning or end
# Python refuses to read a number of thousands of digits; no character has one of nine.
_HUGE = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")


class Page(NamedTuple):
    """What a page says: its title (or first heading), description and text by paragraphs."""

    title: str
    description: str
    text: str


def page(source: str) -> Page:
    """Return what ``source``, a page or a part of one, says; there is no HTML it refuses."""
    return _Scanner(source).page()


def unescaped(text: str) -> str:
    """Return ``text`` with HTML's character references resolved."""
    return html.unescape(_HUGE.sub("\ufffd", text)) if "&" in text else text


class _Scanner:
    def __init__(self, source: str) -> None:
        self.source = source
        self.out: list[str] = []
        self.title = self.heading = self.description = ""
        self.heading_from: int | None = None
        self.pre = 0
        self.absent: set[str] = set()  # what no further search will find
        self.unbalanced: set[str] = set()

    def page(self) -> Page:
        at = 0
        while (tag := self.source.find("<", at)) >= 0:
            self.data(self.source[at:tag])
            at = self.markup(tag)
        self.data(self.source[at:])
        return Page(_flat(self.title or self.heading), _flat(self.description), _joined(self.out))

    def data(self, data: str) -> None:
        if data:
            data = unescaped(data).replace("\xad", "")
            self.out.append(data if self.pre else _SPACE.sub(" ", data))

    def markup(self, tag: int) -> int:
        """Take what begins with the ``<`` at ``tag``; return where it ends."""
        source = self.source
        name = _NAME.match(source, tag + 1)
        if name is not None:
            return self.element(name.group().lower(), name.end())
        if source.startswith("<!--", tag):
            if source.startswith((">", "->"), tag + 4):
                return source.index(">", tag) + 1
            end = self.search("-->", tag + 4)
            return len(source) if end < 0 else end + 3
        if source.startswith(("</", "<!", "<?"), tag):
            end = self.search(">", tag)
            closing = _NAME.match(source, tag + 2) if source[tag + 1] == "/" else None
            if closing is not None:
                self.close(closing.group().lower())
            return len(source) if end < 0 else end + 1
        self.out.append("<")
        return tag + 1

    def search(self, what: str, at: int) -> int:
        """Find ``what`` from ``at`` on; a search that failed once is not made again."""
        if what in self.absent:
            return -1
        found = self.source.find(what, at)
        if found < 0:
            self.absent.add(what)
        return found

    def element(self, name: str, at: int) -> int:
        attributes: dict[str, str] = {}
        plain = _PLAIN_TAG.match(self.source, at)
        at = plain.end() if plain else self.attributes(at, attributes)
        if name in _DROPPED:
            return self.dropped(name, at)
        if name == "title":
            end = self.end_tag(name, at)
            if end is None:
                return at
            self.title = self.title or unescaped(self.source[at : end[0]])
            return end[1]
        if name == "meta":
            called = (attributes.get("name") or attributes.get("property", "")).lower()
            if called in {"description", "og:description"} and not self.description:
                self.description = attributes.get("content", "")
        elif name == "img":
            self.data(f" {html.escape(attributes.get('alt', ''))} ")
        elif name == "pre":
            self.pre += 1
        elif name == "h1" and not self.heading:
            self.heading_from = len(self.out)
        self.apart(name)
        return at

    def close(self, name: str) -> None:
        if name == "pre":
            self.pre = max(0, self.pre - 1)
        elif name == "h1" and self.heading_from is not None:
            self.heading = "".join(self.out[self.heading_from :])
            self.heading_from = None
        self.apart(name)

    def apart(self, name: str) -> None:
        """Part what stands before and after a tag, if the element does."""
        if name in _BLOCK:
            self.out.append("\n\n")
        elif name in _LINE:
            self.out.append("\r")
        elif name == "br":
            self.out.append("\n")
        elif name in _CELL:
            self.out.append(" ")

    def attributes(self, at: int, into: dict[str, str]) -> int:
        """Read attributes from ``at`` to the end of the tag; return where that is."""
        source = self.source
        while True:
            gap = _GAP.match(source, at)
            at = gap.end() if gap else at
            if at >= len(source):
                return at
            if source[at] == ">":
                return at + 1
            attribute = _ATTRIBUTE.match(source, at)
            at = attribute.end() if attribute else at + 1
            value = ""
            if equals := _EQUALS.match(source, at):
                value, at = self.value(equals.end())
            name = attribute.group().lower() if attribute else ""
            if name in {"name", "property", "content", "alt"}:
                into.setdefault(name, unescaped(value))

    def value(self, at: int) -> tuple[str, int]:
        quote = self.source[at : at + 1]
        if quote and quote in "\"'":
            end = self.search(quote, at + 1)
            if end >= 0:
                return self.source[at + 1 : end], end + 1
        bare = _BARE.match(self.source, at)
        return (bare.group(), bare.end()) if bare else ("", at)

    def end_tag(self, name: str, at: int) -> tuple[int, int] | None:
        """Return where the next end tag of ``name`` begins and ends, None if there is none."""
        if name in self.absent:
            return None
        found = re.compile(rf"</{re.escape(name)}(?=[\s/>])[^>]*>?", re.IGNORECASE).search(
            self.source, at
        )
        if found is None:
            self.absent.add(name)
            return None
        return found.span()

    def dropped(self, name: str, at: int) -> int:
        """Return where the content of a dropped element ends; ``at`` if it is never closed.

        A script without an end tag goes on to the end, as in browsers.
        """
        first = self.end_tag(name, at)
        if first is None:
            return len(self.source) if name in {"script", "style"} else at
        if name in _RAW or name in self.unbalanced:
            return first[1]
        depth = 1
        tags = re.compile(rf"<(/?){re.escape(name)}(?=[\s/>])[^>]*>?", re.IGNORECASE)
        for tag in tags.finditer(self.source, at):
            depth += -1 if tag.group(1) else not tag.group().endswith("/>")
            if not depth:
                return tag.end()
        self.unbalanced.add(name)
        return first[1]


def _flat(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _joined(parts: list[str]) -> str:
    text = re.sub("[ \t\f\v]+", " ", "".join(parts))
    return _BREAK.sub(lambda it: "\n\n" if it.group().count("\n") > 1 else "\n", text).strip()
