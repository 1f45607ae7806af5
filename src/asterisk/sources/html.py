"""HTML to text by `html.parser`, in time and memory that grow with its length only.

No tree is built: an HTML5 tree of 27 KB may take a gigabyte, since each block repeats the
formatting that is open around it.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser

from asterisk.sources.document import clean
from asterisk.sources.files import OpenFile, Piece

CHUNK = 1 << 16  # characters given to the parser at a time
_CHARSET = re.compile(
    rb"""(?:<meta[^>]{0,500}?charset\s*=\s*["']?|<\?xml[^>]{0,200}?encoding\s*=\s*["'])\s*"""
    rb"([\w.:+-]{1,40})",
    re.IGNORECASE,
)
_OMITTED = {
    "annotation", "annotation-xml", "audio", "canvas", "datalist", "iframe", "nav", "noembed",
    "noframes", "noscript", "object", "script", "select", "style", "svg", "template", "textarea",
    "video",
}  # fmt: skip
# Their end tags may be left out: the next one ends the one before.
_IMPLIED = {"dd", "dt", "li", "option", "p", "td", "th", "tr"}
_RAW = {"iframe", "noembed", "noframes", "script", "style", "textarea"}  # hold no elements
_BLOCK = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "details", "dialog",
    "div", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "head", "header", "hgroup", "hr", "html", "legend", "listing", "main", "p",
    "plaintext", "pre", "section", "summary", "table", "xmp",
}  # fmt: skip
_SEPARATORS = {
    **dict.fromkeys(_BLOCK, "\n\n"),
    **dict.fromkeys(("dd", "dl", "dt", "li", "ol", "tr", "ul"), "\r"),  # a line's beginning or end
    **dict.fromkeys(("td", "th"), " "),
}
_PREFORMATTED = {"pre", "xmp", "plaintext", "listing"}  # spaces and all; a space is a NUL meanwhile
_TAG = re.compile(r"<(?:[a-zA-Z!?]|/.)", re.DOTALL)
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(r" ?[\n\r][ \n\r]*")
_NOT_SHOWN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# Python refuses to read a number of thousands of digits; no character has one of nine.
_HUGE = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")


def read_html(file: OpenFile) -> Iterator[Piece]:
    """Yield the page as one document."""
    yield page(file.text(_CHARSET), main=True)


def page(source: str, *, main: bool = False) -> Piece:
    """Return title (or first heading), text by paragraphs, date, author and tags of a page.

    ``source`` may be a part of one; none is refused. ``main`` takes the text of ``<main>`` or
    ``<article>`` alone, if it is most of all, after a description that it does not hold.
    """
    # What some versions of the parser fail at (a marked section, a number of thousands of digits)
    # or read on after (an empty comment).
    source = _HUGE.sub("\ufffd", clean(source)).replace("<![", "<! [")
    source = source.replace("<!-->", "").replace("<!--->", "")
    parser, at = _Parser(), 0
    while at < len(source):
        # As much again as it has left: it begins anew at what has no end yet.
        size = max(CHUNK, len(parser.rawdata))
        parser.feed(source[at : at + size])
        at += size
    if _TAG.match(parser.rawdata):  # one without an end is dropped, as in browsers
        parser.rawdata = ""
    parser.close()
    return parser.page(main)


def unescaped(text: str) -> str:
    """Return ``text`` with HTML's character references resolved."""
    return html.unescape(_HUGE.sub("\ufffd", text)) if "&" in text else text


def iso_date(text: str, *, time: bool = False) -> str:
    """Return a date, or a time in UTC, in ISO 8601; "" for what is neither in that notation.

    ``time`` makes a date its first second. A time without a zone is taken for UTC.
    """
    text = text.strip()
    try:
        when = datetime.fromisoformat(text)
        when = when.astimezone(UTC) if when.tzinfo else when
    except (ValueError, OverflowError):
        return ""
    if len(text) <= 10 and not time:
        return when.date().isoformat()
    return when.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


@dataclass
class _Element:
    """An open element: its name, where its text begins, and how many of that name are open."""

    tag: str
    start: int
    depth: int = 1

    def ended_by(self, tag: str) -> bool:
        """Count an end tag, and return whether it is this element's."""
        self.depth -= tag == self.tag
        return not self.depth


class _Parser(HTMLParser):
    """Gathers the text; separators stand between its pieces."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.hidden: list[str] = []
        self.preformatted = 0  # how many such elements are open
        self.raw = ""  # the element whose text is no text of the page
        self.omitted: _Element | None = None
        self.title: list[str] = []
        self.has_title = False
        self.heading, self.heading_start = "", -1
        self.meta: dict[str, str] = defaultdict(str)
        self.tags: list[str] = []
        self.times: list[str] = []
        self.open: dict[str, _Element] = {}
        self.regions: dict[str, list[str]] = {"main": [], "article": []}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.raw:
            return
        attributes = {name: value or "" for name, value in reversed(attrs)}
        if tag in _RAW or (tag == "title" and not self.has_title and not self.omitted):
            self.raw = tag
        if self.omitted and tag == self.omitted.tag:
            self.omitted.depth += 1
            if tag in _IMPLIED and self.omitted.depth == 2:
                self.omit(self.omitted)
        for region in self.open.values():
            region.depth += tag == region.tag
        if not self.omitted:
            self.start(tag, attributes)
        self.out.append("\n" if tag == "br" else _SEPARATORS.get(tag, ""))
        if tag == "img":
            self.handle_data(f" {attributes.get('alt', '')} ")
        self.preformatted += tag in _PREFORMATTED

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the start of an element that is not within an omitted one."""
        if tag in _OMITTED or (tag not in {"html", "body"} and _is_hidden(tag, attributes)):
            self.omitted = _Element(tag, len(self.out))
        elif tag == "meta":
            names = (attributes.get(it, "") for it in ("name", "property", "itemprop"))
            name = next(filter(None, names), "").lower()
            content = _flat(attributes.get("content", ""))
            if name in {"keywords", "article:tag"}:
                self.tags += content.split(",")
            elif content:
                self.meta.setdefault(name, content)
        elif tag == "h1" and not self.heading:
            self.heading_start = len(self.out)
        elif tag == "time" and self.open:
            self.times.append(attributes.get("datetime", ""))
        name = "main" if attributes.get("role") == "main" else tag
        if name in self.regions and name not in self.open:
            self.open[name] = _Element(tag, len(self.out))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in _OMITTED:  # elsewhere the slash means nothing
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.raw and tag != self.raw:
            return
        self.has_title = self.has_title or self.raw == "title"
        self.raw = ""
        self.preformatted = max(0, self.preformatted - (tag in _PREFORMATTED))
        self.out.append(_SEPARATORS.get(tag, ""))
        if self.omitted:
            if self.omitted.ended_by(tag):
                self.omit(self.omitted)
        elif tag == "h1" and self.heading_start >= 0:
            self.heading = _flat("".join(self.out[self.heading_start :]))
            self.heading_start = -1
        for name, region in list(self.open.items()):
            if region.ended_by(tag):
                self.regions[name] += self.out[self.open.pop(name).start :]

    def handle_data(self, data: str) -> None:
        if self.raw:
            self.title += [data] * (self.raw == "title")
            return
        data = data.replace("\xad", "")
        if self.preformatted:
            self.out.append(data.expandtabs(4).replace(" ", "\0"))
        else:
            self.out.append(_SPACE.sub(" ", data))

    def omit(self, element: _Element) -> None:
        """Remove the text of an element that has ended; one that never ends keeps its own."""
        if element.tag not in _OMITTED:
            self.hidden += self.out[element.start :]
        del self.out[element.start :]
        self.omitted = None

    def page(self, main: bool) -> Piece:
        for name, region in self.open.items():
            self.regions[name] += self.out[region.start :]
        if not self.has_title:  # one that never ends is the text
            self.out, self.title = [*self.out, *self.title], []
        text = _join(self.out) or _join(self.hidden)
        meta = self.meta
        if main:
            parts = map(_join, self.regions.values())
            text = next((part for part in parts if 2 * len(part) >= len(text)), text)
            description = meta["description"] or meta["og:description"]
            text = text if description in text else f"{description}\n\n{text}"
        author = meta["author"] or meta["article:author"]
        dates = [meta[name] for name in ("article:published_time", "datepublished", "date")]
        title = _flat("".join(self.title)) or meta["og:title"] or self.heading
        date = next(filter(None, map(iso_date, dates + self.times)), "")
        tags = tuple(filter(None, map(str.strip, self.tags)))
        return Piece("", "", title, text, date, "" if "://" in author else author, tags)


def _is_hidden(tag: str, attributes: dict[str, str]) -> bool:
    hidden = attributes.get("hidden", "until-found").lower() != "until-found"
    closed = tag == "dialog" and "open" not in attributes
    return closed or hidden or bool(_NOT_SHOWN.search(attributes.get("style", "")))


def _flat(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _join(parts: list[str]) -> str:
    text = re.sub("[ \t\f\v]+", " ", "".join(parts))
    text = _BREAK.sub(lambda it: "\n\n" if it.group().count("\n") > 1 else "\n", text)
    return text.replace("\0", " ").strip()
