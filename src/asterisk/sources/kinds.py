"""What kind of file it is: by its name, else by its first bytes."""

from __future__ import annotations

import re

from asterisk.sources.decoding import marked, wide
from asterisk.sources.document import Unreadable
from asterisk.sources.opening import Opened

BY_SUFFIX = {
    **dict.fromkeys((".txt", ".text", ".log", ".rst", ".org", ".tex"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    ".csv": "csv",
    **dict.fromkeys((".rss", ".atom", ".rdf", ".xml"), "feed"),
}
_MAGIC = {
    b"SQLite format 3\0": "a SQLite database (--sqlite FILE --query SQL reads one)",
    b"%PDF-": "a PDF file",
    b"PK\x03\x04": "a ZIP archive or office document",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
}
_MARKUP = re.compile(rb"\s*(?:<\?xml[^>]*>\s*|<!--(?:(?!-->).){0,2000}-->\s*)*", re.DOTALL)
_FEED = re.compile(rb"<(?:rss|feed|(?:\w+:)?RDF)[\s>]")
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)


def kind_of(suffix: str, file: Opened) -> str:
    """Return one of `options.KINDS`; Unreadable for what is binary or no text to read."""
    options, head = file.options, file.head
    if options.kind in {None, "pdf"} and (head.startswith(b"%PDF-") or suffix.lower() == ".pdf"):
        return "pdf"
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            # What a query of it gave before is another run's to judge.
            raise Unreadable(f"{what}, not read", passing=magic.startswith(b"SQLite"))
    if b"\0" in head and marked(head) is None and not wide(options.encoding):
        raise Unreadable(f"binary (a NUL at byte {head.index(0) + 1:,})")
    kind = options.kind or BY_SUFFIX.get(suffix.lower()) or _by_content(suffix, head)
    return "lines" if kind == "text" and options.lines else kind


def _by_content(suffix: str, head: bytes) -> str:
    if suffix.lower() == ".json":
        raise Unreadable("JSON as a whole, not read (--kind jsonl takes a value a line)")
    mark = marked(head)
    start = head[mark[1] :] if mark else head
    prolog = _MARKUP.match(start)
    at = prolog.end() if prolog else 0
    if _FEED.match(start, at):
        return "feed"
    return "html" if _PAGE.match(start, at) else "text"
