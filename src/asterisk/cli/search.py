"""`asterisk-search`: texts into an index, and what is found in it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import positive
from asterisk.cli.subcommands import Family, Sub
from asterisk.errors import ArtifactError, AsteriskError, InputError, UsageError, one_line
from asterisk.progress import Bar, tell

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime
    from asterisk.search import Hit, Index

MODES = ("hybrid", "vectors", "words")


def parser(name: str = "") -> argparse.ArgumentParser:
    """Describe the command line of a subcommand, or of them all."""
    return FAMILY.parser(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return FAMILY.run(argv)


def _index_file(it: argparse.ArgumentParser) -> None:
    it.add_argument("--db", type=Path, required=True, metavar="FILE", help="the index")


def _index_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    from asterisk.sources.arguments import source_arguments

    it.add_argument("paths", nargs="*", type=Path, help="files and folders")
    it.add_argument(
        "--artifact",
        type=Path,
        metavar="FOLDER",
        help="what embeds the texts (default: the one that the index was made with)",
    )
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    it.add_argument(
        "--precision", choices=("int8", "float32"), help="of stored vectors (default: int8)"
    )
    source_arguments(it)


def _index(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.search import Index
    from asterisk.sources import arguments as sources

    options, report = sources.options(arguments), sources.report(arguments)
    if not arguments.paths and not options.databases:
        raise UsageError("say which files or folders to index")
    index = Index.create(arguments.db, arguments.artifact, precision=arguments.precision)
    with index, asterisk.load(index.artifact, threads=arguments.threads) as runtime:
        with Bar(0, "documents") as bar:
            changes = index.update_files(arguments.paths, runtime, options, report, bar.advance)
        counts = {
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
            "unchanged": changes.unchanged,
        }
        done = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"
        if report.count and not any(counts.values()):
            raise InputError(f"nothing could be read: {report.summary()}")
        skipped = f"; {report.summary()}" if report.summary() else ""
        tell(f"asterisk-search: {done}{skipped}; {index.documents} documents in {arguments.db}")


def _query_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    it.add_argument("query", nargs="*", help="what to look for; none: a prompt")
    it.add_argument("-k", type=positive, default=10, help="hits (%(default)s)")
    it.add_argument("--mode", choices=MODES, default="hybrid", help="(default: %(default)s)")
    it.add_argument("--json", action="store_true", help="a JSON object a hit, one a line")
    it.add_argument(
        "--artifact",
        type=Path,
        metavar="FOLDER",
        help="what embeds the query (default: the one that the index was made with)",
    )
    it.add_argument(
        "--engine",
        choices=("scan", "sqlite-vec"),
        default="scan",
        help="what compares vectors (default: %(default)s, the faster one)",
    )


def _query(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.search import Index

    text = " ".join(arguments.query)
    with Index.open(arguments.db, arguments.artifact, engine=arguments.engine) as index:
        if arguments.mode != "words":
            folder = arguments.artifact or index.artifact
            if not folder.is_dir():
                raise ArtifactError(
                    f"{folder}, which the index was made with, is not there: name one by --artifact"
                )
            with asterisk.load(folder) as runtime:
                _ask(arguments, index, runtime, text)
        else:
            _ask(arguments, index, None, text)


def _ask(arguments: argparse.Namespace, index: Index, runtime: Runtime | None, text: str) -> None:
    if index.words is not None and not index.words.usable and arguments.mode == "hybrid":
        tell("asterisk-search: SQLite is built without FTS5 here: by vectors alone")

    def answer(query: str) -> None:
        hits = index.search(query, arguments.k, runtime, arguments.mode)
        for place, hit in enumerate(hits, 1):
            print(json.dumps(asdict(hit)) if arguments.json else shown(place, hit))
        if not hits and not arguments.json:
            tell("nothing found")
        sys.stdout.flush()

    if text or arguments.query:
        answer(text)
    else:
        prompt(answer)


def prompt(answer: Callable[[str], None]) -> None:
    """Read queries until the input ends; what is wrong with one does not end it."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - it gives `input` its keys and history
    while True:
        try:
            query = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                print()
            return
        except UnicodeDecodeError:
            tell("asterisk-search: a query must be UTF-8")
            continue
        if not query.strip():
            continue
        try:
            answer(query)
        except AsteriskError as failure:
            tell(f"asterisk-search: {one_line(failure)}")


def shown(place: int, hit: Hit) -> str:
    """Return a hit as the lines that a person reads."""
    from asterisk.search.printable import printable

    where = printable(hit.source) + (f"  [{printable(hit.key)}]" if hit.key else "")
    title = printable(hit.title)
    near = "" if hit.similarity is None else f"  cosine {hit.similarity:.3f}"
    head = f"{place:2}. {title or where}  ({hit.score:.4f}{near})"
    lines = [head, *([f"    {where}"] if title else []), f"    {hit.snippet}"]
    return "\n".join(lines)


def _info_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    it.add_argument("--json", action="store_true", help="as one JSON object")


def _info(arguments: argparse.Namespace) -> None:
    from asterisk.search import Index
    from asterisk.search.printable import printable

    with Index.open(arguments.db) as index:
        facts = asdict(index.facts)
        facts |= {
            "documents": index.documents,
            "passages": index.passages,
            "sources": index.sources,
            "bytes": index.path.stat().st_size,
        }
    if arguments.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        told = ", ".join(value) if isinstance(value, tuple) else str(value)
        print(f"{name.replace('_', ' '):16} {printable(told)}")


SUBS = {
    "index": Sub("Make an index of files, or bring one up to date.", _index_arguments, _index),
    "query": Sub("Find documents; without a query, a prompt.", _query_arguments, _query),
    "info": Sub("Tell what an index holds.", _info_arguments, _info),
}
FAMILY = Family(
    "asterisk-search", "Search texts by meaning and by words, in one SQLite file.", SUBS
)


if __name__ == "__main__":
    sys.exit(main())
