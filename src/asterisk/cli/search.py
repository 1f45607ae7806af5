"""`asterisk-search`: texts into an index, and searches in it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Family, Sub, positive, prompt_argument
from asterisk.common import terminal
from asterisk.common.errors import ArtifactError, AsteriskError, InputError, UsageError, one_line
from asterisk.common.terminal import Bar, printable

if TYPE_CHECKING:
    from asterisk.apps.search import Hit
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Options

MODES = ("hybrid", "vectors", "words")
OWN = "(default: the one that the index was made with)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return FAMILY.run(argv)


def _index_file(it: argparse.ArgumentParser) -> None:
    it.add_argument("--db", type=Path, required=True, metavar="FILE", help="the index")


def _index_arguments(it: argparse.ArgumentParser) -> None:
    from asterisk.cli.reading_options import add_reading_options

    _index_file(it)
    it.add_argument("paths", nargs="*", type=Path, help="files and folders")
    it.add_argument("--artifact", type=Path, metavar="FOLDER", help=f"what embeds the texts {OWN}")
    prompt_argument(it, "before each document, for a new index (default: the one for documents)")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    precision = "of stored vectors (default: int8)"
    it.add_argument("--precision", choices=("int8", "float32"), help=precision)
    add_reading_options(it)
    prune = "remove what files held that are now empty, cut off, unreadable or something else"
    it.add_argument("--prune", action="store_true", help=prune)


def _index(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.search import Index
    from asterisk.artifact import is_artifact
    from asterisk.cli.reading_options import reading_options, skip_report

    paths, database, artifact = arguments.paths, arguments.db, arguments.artifact
    options, report = reading_options(arguments), skip_report(arguments)
    if not paths and not options.databases:
        raise UsageError("say which files or folders to index")
    made_with = {"precision": arguments.precision, "prompt_name": arguments.prompt_name}
    threads, prune = arguments.threads, arguments.prune
    with contextlib.ExitStack() as stack:
        runtime = None
        if artifact and not is_artifact(artifact):  # a checkpoint says what it is once it is open
            runtime = stack.enter_context(asterisk.load(artifact, threads=threads))
        index = stack.enter_context(Index.create(database, artifact, runtime=runtime, **made_with))
        if runtime is None:
            runtime = stack.enter_context(asterisk.load(index.artifact, threads=threads))
        _warn_of_similarity(runtime)
        with Bar(lambda: _expected(paths, options), "documents") as bar:
            changes = index.update_files(paths, runtime, options, report, bar.advance, prune=prune)
        names = ("added", "changed", "removed", "unchanged", "kept")
        counts = [f"{count} {name}" for name in names if (count := getattr(changes, name))]
        skipped = report.summary()
        if skipped and not counts:
            raise InputError(f"nothing could be read: {skipped}")
        summary = (", ".join(counts) or "nothing") + (f"; {skipped}" if skipped else "")
        terminal.report(f"asterisk-search: {summary}; {index.documents} documents in {database}")


def _expected(paths: Sequence[Path], options: Options) -> int:
    """Return how many documents there will be: one a file, 0 where a file may hold many."""
    from asterisk.sources import scan
    from asterisk.sources.reading import BY_SUFFIX

    if options.databases or options.lines:
        return 0
    try:
        names = [file.path.suffix.lower() for file in scan(paths, options)]
    except InputError:  # one is gone, which the index has to learn
        return 0
    kinds = {options.kind or BY_SUFFIX.get(name, "text") for name in names}
    return len(names) if kinds <= {"text", "markdown", "html", "pdf"} else 0


def _warn_of_similarity(runtime: Runtime) -> None:
    """Print a line where the model's folder asks for another ranking than by cosine."""
    # Between vectors of unit length, dot products and Euclidean distances rank as cosines do.
    same = ("cosine", None, *(("dot", "euclidean") if runtime.config.normalize else ()))
    if (asked := runtime.similarity) not in same:
        line = f"the model asks for {asked} as its similarity; search ranks by cosine"
        terminal.report(f"asterisk-search: {line}")


def _query_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    it.add_argument("query", nargs="*", help="what to look for; none: a prompt")
    it.add_argument("-k", type=positive, default=10, help="hits (%(default)s)")
    it.add_argument("--mode", choices=MODES, default="hybrid", help="(default: %(default)s)")
    it.add_argument("--json", action="store_true", help="a JSON object a hit, one a line")
    it.add_argument("--artifact", type=Path, metavar="FOLDER", help=f"what embeds the query {OWN}")
    prompt_argument(it, "before the query (default: the one for queries)")


def _query(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.search import Index

    mode, prompt_name = arguments.mode, arguments.prompt_name
    if mode == "words" and prompt_name is not None:
        raise UsageError("--prompt-name is for the model, which --mode words does not use")
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(Index.open(arguments.db, arguments.artifact))
        runtime: Runtime | None = None
        if mode != "words":
            folder = arguments.artifact or index.artifact
            if arguments.artifact is None and not folder.is_dir():
                made = f"{folder}, which the index was made with, does not exist"
                raise ArtifactError(f"{made}: name another by --artifact")
            runtime = stack.enter_context(asterisk.load(folder))
            runtime.prompt(prompt_name)  # refused once, not at each line of input
        if index.words is not None and not index.words.usable and mode == "hybrid":
            terminal.report("asterisk-search: SQLite is built without FTS5 here: by vectors alone")

        def answer(query: str) -> None:
            # In an ASCII locale Python keeps other bytes as surrogates.
            query = query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            hits = index.search(query, arguments.k, runtime, mode, prompt_name)
            for rank, hit in enumerate(hits, 1):
                print(json.dumps(asdict(hit)) if arguments.json else format_hit(rank, hit))
            if not hits and not arguments.json:
                terminal.report("nothing found")
            sys.stdout.flush()

        if arguments.query:
            answer(" ".join(arguments.query))
        else:
            read_queries(answer)


def read_queries(answer: Callable[[str], None]) -> None:
    """Call ``answer`` with each line of input; an error in one does not end it."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - it gives `input` its keys and history
    while True:
        try:
            query = input("> " if at_terminal else "")
            if query.strip():
                answer(query)
        except EOFError:
            if at_terminal:
                print()
            return
        except UnicodeDecodeError:
            terminal.report("asterisk-search: a query must be UTF-8")
        except AsteriskError as failure:
            terminal.report(f"asterisk-search: {one_line(failure)}")


def format_hit(rank: int, hit: Hit) -> str:
    """Return a hit as the lines that a person reads."""
    source = printable(hit.source) + (f"  [{printable(hit.key)}]" if hit.key else "")
    title = printable(hit.title)
    cosine = "" if hit.similarity is None else f"  cosine {hit.similarity:.3f}"
    date = f"  {printable(hit.date[:10])}" if hit.date else ""
    head = f"{rank:2}. {title or source}{date}  ({hit.score:.4f}{cosine})"
    return "\n".join([head, *([f"    {source}"] if title else []), f"    {hit.snippet}"])


def _info_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    it.add_argument("--json", action="store_true", help="as one JSON object")


def _info(arguments: argparse.Namespace) -> None:
    from asterisk.apps.search import Index

    with Index.open(arguments.db) as index:
        info = asdict(index.settings)
        info |= {name: getattr(index, name) for name in ("documents", "passages", "sources")}
        info["bytes"] = index.path.stat().st_size
    if arguments.json:
        print(json.dumps(info))
        return
    for name, value in info.items():
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        print(f"{name.replace('_', ' '):16} {printable(text)}")


def _space_arguments(it: argparse.ArgumentParser) -> None:
    _index_file(it)
    model = "an artifact, a checkpoint folder, or a fingerprint of 64 hexadecimal digits"
    it.add_argument("model", help=model)


def _space(arguments: argparse.Namespace) -> None:
    from asterisk.apps.search import Index
    from asterisk.artifact import read_spaces

    others, dimension = read_spaces(arguments.model)
    Index.open(arguments.db).close()  # refused before a writer makes a new file in its place
    with Index.create(arguments.db) as index:
        index.declare(others, dimension)
        terminal.report(f"asterisk-search: {arguments.db} goes with space {others[0]}")


DECLARE = "Declare that an index's vectors may be compared with a model's."
SUBS = {
    "index": Sub("Make an index of files, or bring one up to date.", _index_arguments, _index),
    "query": Sub("Find documents; without a query, a prompt.", _query_arguments, _query),
    "info": Sub("Show what an index holds.", _info_arguments, _info),
    "space": Sub(DECLARE, _space_arguments, _space),
}
SEARCH = "Search texts by meaning and by words, in one SQLite file."
FAMILY = Family("asterisk-search", SEARCH, SUBS)
parser = FAMILY.parser


if __name__ == "__main__":
    sys.exit(main())
