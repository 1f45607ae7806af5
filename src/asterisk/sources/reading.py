"""Documents of one file, or of all that paths lead to, by what kind of file each is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from asterisk.common.digest import DigestSet
from asterisk.common.errors import MissingPackage
from asterisk.sources.document import Document, Options, Report, Unreadable, clean, make_document
from asterisk.sources.files import ERRORS, GZIP, OpenFile, Piece, codec_of, open_file, unicode_codec
from asterisk.sources.scan import SourceFile, scan, skipped

CheckKind = Callable[[str, bool], None]
# By name: an index of notes needs no XML parser.
_READERS = {
    "text": "records.read_text",
    "lines": "records.read_lines",
    "markdown": "markdown.read_markdown",
    "html": "html.read_html",
    "pdf": "pdf.read_pdf",
    "jsonl": "records.read_json_lines",
    "tsv": "records.read_tsv",
    "csv": "records.read_csv",
    "feed": "feeds.read_feed",
    "sqlite": "records.read_database",
}
# Other XML and JSON than feeds is refused by what it is.
_SUFFIXES = {
    "text": "txt text log rst org tex",
    "markdown": "md markdown mdown mkd",
    "html": "html htm xhtml",
    "jsonl": "jsonl ndjson",
    "tsv": "tsv tab",
    "csv": "csv",
    "pdf": "pdf",
    "feed": "rss atom rdf xml json opml svg",
}
BY_SUFFIX = {f".{name}": kind for kind, names in _SUFFIXES.items() for name in names.split()}
KIND_NAMES = {
    "feed": "a feed", "html": "an HTML page", "json": "JSON", "xml": "XML", "text": "plain text",
    "pdf": "a PDF file",
}  # fmt: skip
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
_BEGINNINGS = {
    "feed": re.compile(
        rb"""<(?:!DOCTYPE\s+)?(?:rss|feed|(?:\w+:)?RDF)[\s>]"""
        rb"""|\{[^{}\[\]]{0,4000}"version"\s*:\s*"https?:\\?/\\?/jsonfeed\.org\\?/version\\?/"""
    ),
    "html": re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE),
    "json": re.compile(rb"""\{\s*["}]|\[\s*(?:\{\s*"|"|\]\s*$)"""),
    "xml": re.compile(rb"<Error>|<\?xml"),
}
# What servers put in a file's place, by the kinds that are no such thing.
_WRONG = {
    "feed": {"html"},
    "html": {"feed", "json", "xml"},
    "jsonl": {"feed", "html", "xml"},
    "csv": set(_BEGINNINGS),
    "tsv": set(_BEGINNINGS),
}


def documents(
    paths: Sequence[Path], options: Options | None = None, report: Report | None = None
) -> Iterator[Document]:
    """Yield every document of ``paths`` and of the options' databases, one file after another.

    InputError for a path that does not exist, for a query that cannot be meant, and under a strict
    report for anything that is skipped.
    """
    report = report or Report()
    for file in scan(paths, options, report):
        yield from read(file, options, report)


def read(
    file: SourceFile, options: Options | None = None, report: Report | None = None
) -> Iterator[Document]:
    """Yield the documents of one file; keys are unique within it.

    What cannot be read is reported, as one line; the documents before a fault stay.
    """
    report = report or Report()
    try:
        yield from read_file(file, options or Options(), report)
    except Unreadable as fault:
        report(skipped(file.path, str(fault), temporary=fault.temporary))


def read_file(
    file: SourceFile, options: Options, report: Report, check_kind: CheckKind | None = None
) -> Iterator[Document]:
    """Do as `read` does, but raise Unreadable for what ends the reading.

    ``check_kind`` gets the kind of the file's content, and whether the file's name says the same.
    """
    keys = DigestSet()
    try:
        with open_file(file, options, report) as source:
            for number, piece in enumerate(_pieces(source, check_kind), 1):
                # No part of it instead: that would be found as if it were the text.
                if len(piece.text) + len(piece.title) > options.longest_text:
                    limit = f"longer than {options.longest_text:,} characters"
                    source.skip(piece.position, f"{limit} (see --max-text, --lines)")
                    continue
                key = _unique(clean(piece.key[:1000]), number, keys) if piece.position else ""
                if document := make_document(file.source, key, *piece[2:]):
                    yield document
                else:
                    source.skip(piece.position, "no text")
    except MissingPackage as failure:
        raise Unreadable(str(failure), temporary=True) from None


def _unique(key: str, number: int, keys: DigestSet) -> str:
    """Return ``key``, or the number if it is empty, made different from all before."""
    unique = key = key or str(number)
    # By hash: once in 2^64 a key gets a number that it would not have needed.
    while (digest := hash(unique) & 0xFFFF_FFFF_FFFF_FFFF) in keys:
        unique = f"{key} ({number})"
        number += 1
    keys.add(digest)
    return unique


def _pieces(file: OpenFile, check_kind: CheckKind | None) -> Iterator[Piece]:
    path = file.file.path
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    named, beginning = BY_SUFFIX.get(path.suffix.lower(), ""), _beginning(file)
    kind = "sqlite" if file.file.database else _kind(file, named, beginning)
    if check_kind is not None and kind != "sqlite":
        check_kind(*_content_kind(file, kind, named, beginning))
    module, reader = _READERS[kind].split(".")
    read_pieces: Callable[[OpenFile], Iterator[Piece]] = getattr(
        import_module(f"asterisk.sources.{module}"), reader
    )
    return read_pieces(file)


def _beginning(file: OpenFile) -> str:
    """Return the kind that a file begins like, whatever its name, or ""."""
    start, found = file.head, unicode_codec(file.head, codec_of(file.options.encoding or ""))
    if found:
        start = start[found[1] :].decode(found[0], ERRORS).encode("utf-8", "replace")
    prolog = _PROLOG.match(start)
    at = prolog.end() if prolog else 0
    kinds = (it for it, form in _BEGINNINGS.items() if form.match(start, 0 if it == "xml" else at))
    return next(kinds, "")


def _kind(file: OpenFile, named: str, beginning: str) -> str:
    """Return one of `document.KINDS`; Unreadable for what is binary or no text to read."""
    options, head = file.options, file.head
    if options.kind in {None, "pdf"} and (head.startswith(b"%PDF-") or named == "pdf"):
        return "pdf"
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            # What a query of it gave before is another run's to judge.
            raise Unreadable(f"{what}, not read", temporary=magic.startswith(b"SQLite"))
    kind = options.kind or named
    if not kind:
        kind = {"feed": "feed", "xml": "feed", "html": "html"}.get(beginning, "text")
    elif options.kind is None and beginning in _WRONG.get(kind, ()):
        raise Unreadable(f"{KIND_NAMES[beginning]}, in spite of its name")
    return "lines" if kind == "text" and options.lines else kind


def _content_kind(file: OpenFile, kind: str, named: str, beginning: str) -> tuple[str, bool]:
    """Return the kind of a file's content, to notice another later, and if its name agrees."""
    first = file.head.strip().splitlines()[:1]
    if file.options.kind or not first:
        return "", True
    # A text that is an HTML page is "html", a table of one column "text".
    if kind in {"csv", "tsv"} and not re.search(rb"[,;\t]", first[0]):
        return "text", False
    if kind in {"text", "lines", "markdown"}:
        content = "html" if _ERROR_PAGE.match(first[0]) else beginning
        return content or "text", not content and named in {"text", "markdown"}
    return kind, kind == named
