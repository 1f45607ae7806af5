"""RSS, RDF, Atom and JSON Feed: a document an entry.

feedparser reads the XML: its strict parser what is well-formed, its loose one the rest. It gets the
root element alone, so that no document type, no entity but XML's and HTML's and nothing outside the
file is named, and is stopped where a hostile feed would cost more than its length.
"""

from __future__ import annotations

import contextlib
import email.utils
import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from asterisk.common.errors import one_line
from asterisk.common.plugins import require
from asterisk.sources.document import Unreadable
from asterisk.sources.files import OpenFile, Piece
from asterisk.sources.html import iso_date, page, unescaped

DEEPEST = 256
MOST_ENTRIES = 1_000_000
MOST_ATTRIBUTES = 1_000  # of an element
MOST_NAMESPACES = MOST_TAGS = 100  # of a feed, of an entry; more are left out
_ENCODING = re.compile(rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']\s*([\w.:+-]{1,40})""")
# Before the root: text (of a server's warnings, with their markup), comments, a document type.
_BEFORE = re.compile(
    r"[^<]+|<!--.*?-->|<\?.*?\?>|<!DOCTYPE\s+(?!html)[^>\[]*>|</?(?:b|br|i|p)\b[^<>]*>",
    re.DOTALL | re.IGNORECASE,
)
_ROOT = re.compile(r"<((?:[\w.-]+:)?(?:rss|feed|RDF))(?=[\s>/])([^<>]*/>\s*\Z)?", re.IGNORECASE)
_ENTRY = re.compile(r"<(?:[\w.-]+:)?(?:item|entry)[\s>]", re.IGNORECASE)
# A CDATA section that has no end before the next one begins, up to the end of its element.
_OPEN_CDATA = re.compile(
    r"(<([\w:.-]++)[^<>]*+>\s*+<!\[CDATA\[(?:(?!\]\]>|<!\[CDATA\[|</\2).)*+)"
    r"(?=</\2(?:(?!\]\]>|<!\[CDATA\[).)*+(?!\]\]>))",
    re.DOTALL,
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_AMPERSAND = re.compile(r"&(?:(?:#\d+|#[xX][\da-fA-F]+|[A-Za-z][A-Za-z\d]*);)?")
_ESCAPED = re.compile(
    r"</(?:a|b|div|em|h\d|i|li|p|span|strong|td|ul)>|<(?:br|p)\s*/?>", re.IGNORECASE
)
# Of feedparser, at elements where they are not expected; they cost the element.
_FAULTS = (LookupError, ValueError, TypeError)
_DATES = ("published", "updated")
_AT_END = {"no element found", "unclosed token", "unclosed CDATA section"}  # expat's words


def read_feed(file: OpenFile) -> Iterator[Piece]:
    """Yield the entries that are complete, then raise Unreadable if there were more."""
    text = file.text(_ENCODING, partial=True)
    if text.lstrip().startswith(("{", "[")):
        yield from _json_feed(file, text)
        return
    text, closed = _root(text)
    parser, fault = _parse(text, closed)
    complete = parser.complete
    for number, entry in enumerate(parser.entries[:complete], 1):
        yield _piece(number, entry, atom=parser.version.startswith("atom"))
    before = f" (entries before that: {complete:,})" if complete else ""
    if isinstance(fault, Unreadable):
        raise Unreadable(f"{fault}{before}")
    if not closed:
        raise Unreadable(f"cut off: its root element does not end{before}")
    if fault and complete < len(_ENTRY.findall(text)):
        raise Unreadable(f"broken XML: {fault}{before}")
    if fault:
        file.note(f"read in spite of broken XML: {fault}")


def _root(text: str) -> tuple[str, bool]:
    """Return the root element, and whether it ends. Unreadable if it is not a feed's."""
    at = 0
    while match := _BEFORE.match(text, at):
        at = match.end()
    root = _ROOT.match(text, at)
    if root is None:
        if re.match(r"<!DOCTYPE\s+(?!html)", text[at:], re.IGNORECASE):
            raise Unreadable("a document type that declares entities, which feeds must not have")
        if element := re.match(r"<[\w:.-]{1,40}", text[at:]):
            raise Unreadable(f"XML, but no RSS or Atom feed ({element.group()}>)")
        raise Unreadable("no feed" if text[at:] else "empty, or no markup")
    lines = "\n" * text.count("\n", 0, at)  # so that faults have the file's line numbers
    end = text.rfind(f"</{root.group(1)}")
    close = text.find(">", end) + 1 if end >= 0 else len(text) if root.group(2) else 0
    return lines + text[at : close or None], bool(close)


def _parse(text: str, closed: bool) -> tuple[Any, str | Unreadable]:
    """Return feedparser's parser after ``text``, and its first fault or "": Unreadable ended it."""
    require("feedparser", "feeds")
    from xml import sax

    from feedparser import api

    first = ""
    if text.count("<![CDATA[") > text.count("]]>"):
        text, sections = _OPEN_CDATA.subn(r"\1]]>", text)
        first = "a CDATA section without an end" if sections else ""
    try:
        for repaired in (False, True):
            parser: Any = type("Strict", (_Bounds, api.StrictFeedParser), {})("", None, "utf-8")
            reader: Any = sax.make_parser()  # noqa: S317 - it gets no document type, so no entities
            reader.setFeature(sax.handler.feature_namespaces, True)
            reader.setContentHandler(parser)
            reader.setErrorHandler(parser)
            if repaired:
                text = _CONTROL.sub("\ufffd", _AMPERSAND.sub(_as_xml, text))
            try:
                reader.feed(text)  # at once: expat reads what is incomplete again with each piece
                reader.close()
                return parser, first
            except sax.SAXParseException as failure:
                first = first or f"{failure.getMessage()} in line {failure.getLineNumber()}"
                if not closed and failure.getMessage() in _AT_END:
                    return parser, first
            except _FAULTS as failure:
                first = first or one_line(failure)
        parser = type("Loose", (_Bounds, api.LooseFeedParser), {})("", None, "utf-8", {})
        parser.feed(text)
    except Unreadable as failure:
        return parser, failure
    return parser, first


_FeedParser: Any = object  # feedparser is imported when there is a feed


class _Bounds(_FeedParser):  # type: ignore[misc]
    """Keeps feedparser's classes from what costs hostile feeds more than their length."""

    resolve_relative_uris = sanitize_html = False
    complete = 0  # entries that have ended

    def startElementNS(self, name: Any, qname: Any, attributes: Any) -> None:  # noqa: N802
        # The strict parser's only: to the loose one, elements without an end look like depth.
        if self.depth >= DEEPEST:
            raise Unreadable(f"nested deeper than {DEEPEST}")
        if len(attributes) > MOST_ATTRIBUTES:
            raise Unreadable(f"an element with more than {MOST_ATTRIBUTES:,} attributes")
        super().startElementNS(name, qname, attributes)

    def unknown_starttag(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        others = [it for it in attributes if it[0].lower() not in {"base", "xml:base"}]
        with contextlib.suppress(*_FAULTS):
            super().unknown_starttag(tag, others)

    def unknown_endtag(self, tag: str) -> None:
        with contextlib.suppress(*_FAULTS):
            super().unknown_endtag(tag)

    def resolve_uri(self, uri: str) -> str:
        return uri  # a key is what the feed says

    def track_namespace(self, prefix: str | None, uri: str) -> None:
        if len(self.namespaces_in_use) < MOST_NAMESPACES:
            super().track_namespace(prefix, uri)

    def _start_item(self, attributes: dict[str, str]) -> None:
        if len(self.entries) >= MOST_ENTRIES:
            raise Unreadable(f"more than {MOST_ENTRIES:,} entries")
        super()._start_item(attributes)

    def _end_item(self) -> None:
        super()._end_item()
        self.complete = len(self.entries)

    _start_entry, _end_entry = _start_item, _end_item

    def _add_tag(self, term: Any, scheme: Any, label: Any) -> None:
        if len(self._get_context().get("tags") or ()) < MOST_TAGS:
            super()._add_tag(term, scheme, label)

    def _sync_author_detail(self, key: str = "author") -> None:
        pass  # it looks for addresses, in time with the square of the text


def _as_xml(ampersand: re.Match[str]) -> str:
    """Return what is left of an ampersand in XML: HTML's entities become their characters."""
    given = ampersand.group()
    if given in {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"}:
        return given
    meant = unescaped(given) or "\ufffd"
    return given if given[1:2] == "#" and meant != "\ufffd" else html.escape(meant)


def _piece(number: int, entry: Any, *, atom: bool) -> Piece:
    def text_of(part: Any) -> str:
        """Return the text of an element as its type has it; RSS has HTML by custom."""
        kind, value = part.get("type") or "text/html", part.get("value") or ""
        if atom and kind == "text/plain":
            return str(value)
        if not kind.startswith("text/") and not kind.endswith(("/xml", "+xml")):
            return ""  # a picture, perhaps
        text = page(value).text
        # Escaped once more than it should be.
        return page(text).text if "<" not in value and _ESCAPED.search(text) else text

    links = [it.get("href") for it in entry.get("links") or () if it.get("rel") == "alternate"]
    summary = entry.get("summary_detail") or {"value": entry.get("summary")}
    parts = [*(entry.get("content") or ()), summary]
    if not atom:
        parts.sort(key=lambda part: -len(part.get("value") or ""))
    # As a dict has it: feedparser's own look-up gives one for the other, with a warning.
    dates = (_date(dict.get(entry, it), dict.get(entry, f"{it}_parsed")) for it in _DATES)
    names = [it.get("name") or it.get("email") for it in entry.get("authors") or ()]
    author = ", ".join(filter(None, names)) or entry.get("author") or ""
    address, _, name = author.partition(" (")
    author = name.removesuffix(")") if "@" in address and name else author  # as RSS 2.0 writes it
    key = next(filter(None, (entry.get("id"), *links)), str(number))
    title = text_of(entry.get("title_detail") or {})
    text = next(filter(None, map(text_of, parts)), "")
    tags = tuple(tag.get("label") or tag.get("term") or "" for tag in entry.get("tags") or ())
    return Piece(f"entry {number}", key, title, text, next(filter(None, dates), ""), author, tags)


def _date(text: str | None, parsed: Any) -> str:
    """Return a date in UTC, "" where there is none; ``parsed`` is what feedparser made of it."""
    text = (text or "").strip()
    if date := iso_date(text, time=True):
        return date
    try:
        return iso_date(email.utils.parsedate_to_datetime(text).isoformat(), time=True)
    except (ValueError, TypeError, IndexError, OverflowError):
        # It reads more notations, but takes today's month or day for what it does not find in
        # numbers.
        if parsed and text[:1].isalpha() and parsed[0] > 0:
            return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*parsed[:6])
        return ""


def _json_feed(file: OpenFile, text: str) -> Iterator[Piece]:
    """Yield the items of a JSON Feed (https://www.jsonfeed.org/version/1.1/)."""
    try:
        feed = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise Unreadable(f"no JSON, or cut off: {one_line(failure)}") from None
    version = feed.get("version") if isinstance(feed, dict) else None
    if not re.match(r"https?://(?:www\.)?jsonfeed\.org/version/", str(version)):
        raise Unreadable("JSON, but no JSON Feed (--kind jsonl takes a value a line)")
    for number, item in enumerate(_list_of(object, feed.get("items")), 1):
        if not isinstance(item, dict):
            file.skip(f"entry {number}", "no JSON object")
            continue
        said = defaultdict(str, {name: it for name, it in item.items() if isinstance(it, str)})
        key = item["id"] if isinstance(item.get("id"), int) else said["id"] or said["url"]
        authors = _list_of(dict, item.get("authors") or [item.get("author")])
        yield Piece(
            f"entry {number}",
            str(key) if key != "" else str(number),
            said["title"],
            said["content_text"] or page(said["content_html"]).text or said["summary"],
            iso_date(said["date_published"] or said["date_modified"], time=True),
            ", ".join(_list_of(str, [author.get("name") for author in authors])),
            tuple(_list_of(str, item.get("tags"))),
        )


def _list_of(kind: type, value: Any) -> list[Any]:
    """Return the items of this kind in a list, none in anything else."""
    return [it for it in value if isinstance(it, kind)] if isinstance(value, list) else []
