"""Documents of one file, or of all that paths lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from asterisk.common.errors import MissingPackage
from asterisk.sources.document import Document, Report, Skipped, Unreadable, fit, made
from asterisk.sources.keys import Keys
from asterisk.sources.kinds import kind_of, like
from asterisk.sources.opening import Opened, Piece, opened
from asterisk.sources.options import Options
from asterisk.sources.scan import SourceFile, scan, shown

Reader = Callable[[Opened], Iterator[Piece]]

# By name: an index of notes needs no XML parser.
_READERS = {
    "text": ("plain", "read_text"),
    "lines": ("plain", "read_lines"),
    "markdown": ("markdown", "read_markdown"),
    "html": ("pages", "read_html"),
    "pdf": ("pdf", "read_pdf"),
    "jsonl": ("json_lines", "read_json_lines"),
    "tsv": ("tables", "read_tsv"),
    "csv": ("tables", "read_csv"),
    "feed": ("feeds", "read_feed"),
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

    What cannot be read is reported, as one line; the documents before a fault stay. A document
    longer than `Options.longest_text` is refused as a whole: a part of it would be found as if it
    were the text.
    """
    options, report = options or Options(), report or Report()
    name = shown(file.path)

    def skip(where: str, reason: str) -> None:
        place = f"{name}, {where}" if where else name
        report(Skipped(place, reason, file.source, whole=not where))

    def note(reason: str) -> None:
        report(Skipped(name, reason, file.source, note=True))

    try:
        with opened(file.path, options, skip, note) as source:
            yield from _unique(_pieces(file, source, report), file.source, options, skip)
    except (Unreadable, MissingPackage) as failure:
        passing = isinstance(failure, MissingPackage) or failure.passing
        report(Skipped(name, str(failure), file.source, whole=True, passing=passing))


def _pieces(file: SourceFile, source: Opened, report: Report) -> Iterator[Piece]:
    if file.database is not None:
        from asterisk.sources.databases import read_database

        return read_database(source, file.database)
    packed = file.path.suffix.lower() == ".gz"
    suffix = Path(file.path.stem if packed else file.path.name).suffix
    kind = kind_of(suffix, source)
    report.reads(file.source, *like(kind, suffix, source))
    module, reader = _READERS[kind]
    read_it: Reader = getattr(import_module(f"asterisk.sources.{module}"), reader)
    return read_it(source)


def _unique(
    pieces: Iterator[Piece], source: str, options: Options, skip: Callable[[str, str], None]
) -> Iterator[Document]:
    """Yield what the pieces say, under keys of their own; blank ones are reported."""
    keys = Keys()
    for number, piece in enumerate(pieces, 1):
        if len(piece.text) + len(piece.title) > options.longest_text:
            limit = f"{options.longest_text:,}"
            skip(piece.where, f"longer than {limit} characters (see --max-text, --lines)")
            continue
        key = keys.unique(fit(piece.key[:1000]), number) if piece.where else ""
        document = made(source, key, *piece[2:])
        if document is None:
            skip(piece.where, "no text")
        else:
            yield document
