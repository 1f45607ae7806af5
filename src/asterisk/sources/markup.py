"""HTML to text through lxml, in time and memory that grow with its length only.

libxml2 tells tags and text one by one and no tree is built: an HTML5 tree of 27 KB may take a
gigabyte, since each block repeats what is open around it. The parser is begun anew where a page is
nested too deep, or where it did not understand the end of an element that is left out.
"""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from typing import NamedTuple

from asterisk.plugins import require
from asterisk.sources.document import fit

DEEPEST = 1000  # elements; the parser's work at a stray end tag grows with them
_LEFT_OUT = (
    "annotation|annotation-xml|audio|canvas|datalist|iframe|nav|noembed|noframes|noscript|object|"
    "script|select|style|svg|template|textarea|video"
)
_OMITTED = frozenset(_LEFT_OUT.split("|"))
_RAW = {"iframe", "noembed", "noframes", "script", "style", "textarea"}  # hold no elements
_BLOCK = {
    "address", "article", "aside", "blockquote", "body", "caption", "center", "details", "dialog",
    "div", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4",
    "h5", "h6", "head", "header", "hgroup", "hr", "html", "legend", "listing", "main", "p",
    "plaintext", "pre", "section", "summary", "table", "xmp",
}  # fmt: skip
_APART = {
    **dict.fromkeys(_BLOCK, "\n\n"),
    **dict.fromkeys(("dd", "dl", "dt", "li", "ol", "tr", "ul"), "\r"),  # a line's beginning or end
    **dict.fromkeys(("td", "th"), " "),
}
_KEPT = {"pre", "xmp", "plaintext", "listing"}  # spaces and all; a space is a NUL meanwhile
# What ends an element that is left out, and comments, in which it would end nothing.
_PARTS = re.compile(rf"(<!--.*?(?:-->|\Z)|</(?:{_LEFT_OUT})(?=[\s/>])[^<>]*>)", re.I | re.S)
_CHUNK = re.compile(r".{1,8192}(?=<|\Z)|.{1,8192}", re.S)
_END_TAG = re.compile(r"</([a-z-]+)", re.I)
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(r" ?[\n\r][ \n\r]*")
_UNSEEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# Python refuses to read a number of thousands of digits; no character has one of nine.
_HUGE = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")


class Page(NamedTuple):
    """What a page says: its title (or first heading), description and text by paragraphs.

    ``date``, ``author`` and ``tags`` as `Document` has them.
    """

    title: str
    description: str
    text: str
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()


def page(source: str, *, main: bool = False) -> Page:
    """Return what ``source``, a page or a part of one, says; there is no HTML it refuses.

    With ``main`` the text is that of ``<main>`` or ``<article>`` alone, if it is most of the text.
    MissingExtra without lxml.
    """
    etree = require("lxml.etree", "html")
    target, parser = _Target(), None
    for part in (it for whole in _PARTS.split(fit(source)) for it in _CHUNK.findall(whole)):
        end_tag = _END_TAG.match(part)
        target.ending = end_tag[1].lower() if end_tag else ""
        ends = bool(end_tag) and target.ending == target.omitted and not target.raw
        before = target.depth
        if parser is None:
            parser = etree.HTMLParser(target=target, encoding="utf-8", huge_tree=True)
        parser.feed(part.encode())
        if target.depth > DEEPEST or (ends and target.depth >= before):
            parser = parser.close()  # which ends each open element, and returns None
    target.ending = ""
    if parser is not None:
        parser.close()
    return target.page(main)


def unescaped(text: str) -> str:
    """Return ``text`` with HTML's character references resolved."""
    return html.unescape(_HUGE.sub("\ufffd", text)) if "&" in text else text


def iso_date(text: str) -> str:
    """Return a date, or a time in UTC, in ISO 8601; "" for what is neither in that notation.

    A time without a zone is taken for UTC.
    """
    text = text.strip()
    try:
        when = datetime.fromisoformat(text)
        when = when.astimezone(UTC) if when.tzinfo else when
    except (ValueError, OverflowError):
        return ""
    if len(text) <= 10:
        return when.date().isoformat()
    return when.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


class _Target:
    """Takes what the parser tells; ``ending`` is the name in the end tag that it is given."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.hidden: list[str] = []
        self.depth = self.pre = 0
        self.raw = self.ending = ""
        self.titled = False
        self.omitted, self.omitted_at, self.omitted_from = "", 0, 0  # its name, depth and text
        self.title, self.heading, self.heading_from = "", "", -1
        self.meta: dict[str, str] = {}
        self.tags: list[str] = []
        self.times: list[str] = []
        self.begun: dict[str, tuple[int, int]] = {}  # regions that are open: depth and text
        self.regions: dict[str, list[str]] = {"main": [], "article": []}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if tag in _RAW or tag == "title":
            self.raw = tag
        if not self.omitted:
            if tag in _OMITTED or (tag not in {"html", "body"} and _is_hidden(tag, attributes)):
                self.omitted, self.omitted_at, self.omitted_from = tag, self.depth, len(self.out)
            elif tag == "meta":
                self.about(attributes)
            elif tag == "h1" and not self.heading:
                self.heading_from = len(self.out)
            elif tag == "time" and self.begun:
                self.times.append(attributes.get("datetime", ""))
            region = "main" if attributes.get("role") == "main" else tag
            if region in self.regions and region not in self.begun:
                self.begun[region] = (self.depth, len(self.out))
        self.out.append("\n" if tag == "br" else _APART.get(tag, ""))
        if tag == "img":
            self.data(f" {attributes.get('alt', '')} ")
        self.pre += tag in _KEPT

    def end(self, tag: str) -> None:
        self.pre -= tag in _KEPT
        self.raw = ""
        self.titled = self.titled or (tag == "title" and not self.omitted)
        self.out.append(_APART.get(tag, ""))
        if self.omitted and self.depth == self.omitted_at:
            # What nobody closed may be the whole page.
            if tag not in _OMITTED or tag == self.ending:
                if tag not in _OMITTED:
                    self.hidden += self.out[self.omitted_from :]
                del self.out[self.omitted_from :]
            self.omitted = ""
        elif not self.omitted:
            if tag == "h1" and self.heading_from >= 0:
                self.heading = _flat("".join(self.out[self.heading_from :]))
                self.heading_from = -1
            for region in [name for name, at in self.begun.items() if at[0] == self.depth]:
                self.regions[region] += self.out[self.begun.pop(region)[1] :]
        self.depth -= 1

    def data(self, data: str) -> None:
        if self.raw == "title":
            self.title += "" if self.titled or self.omitted else data
        elif not self.raw:
            data = data.replace("\xad", "")
            data = data.expandtabs(4).replace(" ", "\0") if self.pre else _SPACE.sub(" ", data)
            self.out.append(data)

    def close(self) -> None:
        """Take the end, which nothing hangs on."""

    def about(self, attributes: dict[str, str]) -> None:
        names = (attributes.get(it, "") for it in ("name", "property", "itemprop"))
        name = next(filter(None, names), "").lower()
        content = _flat(attributes.get("content", ""))
        if name in {"keywords", "article:tag"}:
            self.tags += content.split(",")
        elif content:
            self.meta.setdefault(name, content)

    def page(self, main: bool) -> Page:
        text = _joined(self.out) or _joined(self.hidden)
        for region in self.regions.values() if main else ():
            alone = _joined(region)
            if 2 * len(alone) >= len(text):
                text = alone
                break
        meta = self.meta
        author = meta.get("author", "") or meta.get("article:author", "")
        dates = [meta.get(it, "") for it in ("article:published_time", "datepublished", "date")]
        return Page(
            _flat(self.title) or meta.get("og:title", "") or self.heading,
            meta.get("description", "") or meta.get("og:description", ""),
            text,
            next(filter(None, map(iso_date, dates + self.times)), ""),
            "" if "://" in author else author,
            tuple(filter(None, map(str.strip, self.tags))),
        )


def _is_hidden(tag: str, attributes: dict[str, str]) -> bool:
    hidden = attributes.get("hidden", "until-found").lower() != "until-found"
    closed = tag == "dialog" and "open" not in attributes
    return closed or hidden or bool(_UNSEEN.search(attributes.get("style", "")))


def _flat(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _joined(parts: list[str]) -> str:
    text = re.sub("[ \t\f\v]+", " ", "".join(parts))
    text = _BREAK.sub(lambda it: "\n\n" if it.group().count("\n") > 1 else "\n", text)
    return text.replace("\0", " ").strip()
