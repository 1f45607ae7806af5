"""What kind of file it is: by its name, else by its first bytes."""

from __future__ import annotations

import re

from asterisk.sources.decoding import ERRORS, known, unicode_of
from asterisk.sources.document import Unreadable
from asterisk.sources.opening import GZIP, Opened

BY_SUFFIX = {
    **dict.fromkeys((".txt", ".text", ".log", ".rst", ".org", ".tex"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    ".csv": "csv",
    ".pdf": "pdf",
    # Other XML and JSON is refused by what it is.
    **dict.fromkeys((".rss", ".atom", ".rdf", ".xml", ".json", ".opml", ".svg"), "feed"),
}
_MAGIC = {
    b"SQLite format 3\0": "a SQLite database (--sqlite FILE --query SQL reads one)",
    b"%PDF-": "a PDF file",
    b"PK\x03\x04": "a ZIP archive or office document",
    GZIP: "compressed by gzip twice",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
}
_PROLOG = re.compile(rb"\s*(?:<\?xml[^>]*>\s*|<!--(?:(?!-->).){0,2000}-->\s*)*", re.DOTALL)
_ERROR_PAGE = re.compile(rb"(?:<center>\s*)?<h1>\s*(?:[45]\d\d\b|not found)", re.IGNORECASE)
_LOOKS = {
    "feed": re.compile(
        rb"""<(?:!DOCTYPE\s+)?(?:rss|feed|(?:\w+:)?RDF)[\s>]"""
        rb"""|\{[^{}\[\]]{0,4000}"version"\s*:\s*"https?:\\?/\\?/jsonfeed\.org\\?/version\\?/"""
    ),
    "html": re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE),
    "json": re.compile(rb"""\{\s*["}]|\[\s*(?:\{\s*"|"|\]\s*$)"""),
    "xml": re.compile(rb"<Error>|<\?xml"),
}
NAMES = {
    "feed": "a feed", "html": "an HTML page", "json": "JSON", "xml": "XML", "text": "plain text",
    "pdf": "a PDF file",
}  # fmt: skip
# What servers put in a file's place, by the kinds that are no such thing.
_WRONG = {
    "feed": {"html"},
    "html": {"feed", "json", "xml"},
    "jsonl": {"feed", "html", "xml"},
    "csv": set(_LOOKS),
    "tsv": set(_LOOKS),
}


def kind_of(suffix: str, file: Opened) -> str:
    """Return one of `options.KINDS`; Unreadable for what is binary or no text to read."""
    options, head = file.options, file.head
    named = BY_SUFFIX.get(suffix.lower(), "")
    if options.kind in {None, "pdf"} and (head.startswith(b"%PDF-") or named == "pdf"):
        return "pdf"
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            # What a query of it gave before is another run's to judge.
            raise Unreadable(f"{what}, not read", passing=magic.startswith(b"SQLite"))
    kind, look = options.kind or named, _look(file)
    if not kind:
        kind = {"feed": "feed", "xml": "feed", "html": "html"}.get(look, "text")
    elif options.kind is None and look in _WRONG.get(kind, ()):
        raise Unreadable(f"{NAMES[look]}, in spite of its name")
    return "lines" if kind == "text" and options.lines else kind


def like(kind: str, suffix: str, file: Opened) -> tuple[str, bool]:
    """Return what a file is like, to notice another in its place, and if its name says the same.

    The first is one of `NAMES`: a text that is an HTML page is like "html", a table of one column
    like "text". It is "" where the user gives the kind, and for a blank file.
    """
    first = file.head.strip().splitlines()[:1]
    if file.options.kind or not first:
        return "", True
    if kind in {"csv", "tsv"} and not re.search(rb"[,;\t]", first[0]):
        return "text", False
    named = BY_SUFFIX.get(suffix.lower(), "")
    if kind in {"text", "lines", "markdown"}:
        look = "html" if _ERROR_PAGE.match(first[0]) else _look(file)
        return look or "text", not look and named in {"text", "markdown"}
    return kind, kind == named


def _look(file: Opened) -> str:
    """Return what a file begins like, whatever its name, or ""."""
    start, found = file.head, unicode_of(file.head, known(file.options.encoding or ""))
    if found:
        start = start[found[1] :].decode(found[0], ERRORS).encode("utf-8", "replace")
    prolog = _PROLOG.match(start)
    at = prolog.end() if prolog else 0
    for name, pattern in _LOOKS.items():
        if pattern.match(start, 0 if name == "xml" else at):
            return name
    return ""
