"""`asterisk-dedup`: near-duplicates in files or an index, and one record for each."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from asterisk.cli.common import Parser, format_of, fraction, positive, prompt_argument, run
from asterisk.common.errors import InputError, OutputError, UsageError
from asterisk.common.terminal import Stages, report

if TYPE_CHECKING:
    from asterisk.apps.dedup.texts import Copies, Spool
    from asterisk.apps.dedup.vectors import Vectors
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Options

FORMATS = {".txt": "report", ".json": "json", ".tsv": "tsv", ".tab": "tsv"}
KEEP_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".tab": "tsv"}
NUMBERS = ("differ", "ignore")  # as in asterisk.apps.dedup.texts, which needs numpy
OWN_FILES = ("-wal", "-shm", "-journal", "-lock")  # beside a database


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    from asterisk.cli.reading_options import add_reading_options

    it = Parser(
        prog="asterisk-dedup",
        description="Find texts that say the same as another, and keep one of each.",
    )
    it.add_argument("paths", nargs="*", type=Path, help="files and folders to read")
    it.add_argument("--db", type=Path, help="an index of asterisk-search, instead of paths")
    it.add_argument("--artifact", type=Path, help="artifact folder; needed unless --db is given")
    how = it.add_mutually_exclusive_group()
    how.add_argument("--threshold", type=fraction, help="least cosine of a duplicate (the model's)")
    how.add_argument("--precision", type=fraction, help="choose the threshold for this precision")
    judged = "judged pairs for --precision: 0 or 1, text, text, by tabs"
    it.add_argument("--labelled", type=Path, help=judged)
    differ = "whether texts whose numbers contradict each other differ (default), or may be one"
    it.add_argument("--numbers", choices=NUMBERS, default=NUMBERS[0], help=differ)
    prompt_argument(it, "before each text (default: its own default)")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    formats = sorted({*FORMATS.values()})
    it.add_argument("--format", choices=formats, help="default: by --out's name, else report")
    it.add_argument("--out", type=Path, help="file to write (default: standard output)")
    it.add_argument("--keep", type=Path, help="file for the records that stay: JSON lines, or .tsv")
    add_reading_options(it)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    # Threads of our own multiply blocks; numpy's beside them would only be in the way. It reads
    # this when it is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run(parser(), _dedup, argv)


def _dedup(arguments: argparse.Namespace) -> None:
    settings = _check(arguments)
    from asterisk.apps.dedup.deduplication import cluster, numbers_of, write_found, write_kept
    from asterisk.apps.dedup.texts import Spool, compared_text

    threads, numbers = arguments.threads, arguments.numbers
    with Spool(compared_text) as spool:
        with Stages() as stages:
            copies, vectors, cut, threshold, chosen = _read(arguments, settings, spool, stages)
            of = numbers_of(copies, spool) if numbers == NUMBERS[0] else None
            found = cluster(
                copies, vectors, threshold, threads=threads, numbers=of, progress=stages, cut=cut
            )
        if arguments.keep:
            with _open(arguments.keep) as file:
                write_kept(found, spool, format_of(arguments.keep, KEEP_FORMATS, "--keep"), file)
        with _open(arguments.out) as file:
            write_found(found, spool, arguments.format, file, numbers=numbers, chosen=chosen)


def _check(arguments: argparse.Namespace) -> Options:
    """Return how files are read; UsageError and OutputError for what does not go together."""
    from asterisk.cli.reading_options import reading_options

    settings = reading_options(arguments)
    databases = [one.path for one in settings.databases]
    if bool(arguments.paths or databases) == bool(arguments.db):
        raise UsageError("give files or folders to read, or --db INDEX")
    if not arguments.db and not arguments.artifact:
        raise UsageError("--artifact FOLDER is needed to embed texts")
    if arguments.labelled and arguments.precision is None:
        raise UsageError("--labelled needs --precision")
    if arguments.labelled and not arguments.artifact:
        raise UsageError("--labelled needs --artifact to embed its texts")
    if arguments.prompt_name is not None and arguments.db and not arguments.labelled:
        raise UsageError("--prompt-name is for texts that are embedded; an index holds vectors")
    if arguments.threshold == 0 or arguments.precision == 0:
        raise UsageError("a threshold or precision of 0 would make everything one cluster")
    targets = arguments.targets = [*filter(None, (arguments.out, arguments.keep))]
    for target in targets:
        _check_target(target, [*databases, *filter(None, [arguments.db])])
        for source in filter(None, (arguments.db, arguments.labelled)):
            _check_not_input(target, source)
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError("--out and --keep are the same file")
    arguments.format = arguments.format or format_of(arguments.out, FORMATS)
    format_of(arguments.keep, KEEP_FORMATS, "--keep")
    return settings


def _check_target(target: Path, databases: Sequence[Path]) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: no such folder")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {target}: it is not a plain file")
    # By name, for they come and go; by the real name too, which SQLite goes by.
    names = {os.path.realpath(target), str(target.absolute())}
    for database in databases:
        paths = (os.path.realpath(database), str(database.absolute()))
        if names & {path + end for path in paths for end in OWN_FILES}:
            raise UsageError(f"cannot write {target}: it belongs to the database {database}")


def _check_not_input(target: Path, source: Path) -> None:
    with contextlib.suppress(OSError):
        if target.samefile(source):
            raise UsageError(f"cannot write {target}: it is read from, and would be lost")


def _read(
    arguments: argparse.Namespace, settings: Options, spool: Spool, stages: Stages
) -> tuple[Copies, Vectors, int, float, str]:
    """Return rows, vectors, how many texts were cut, the threshold and how it was chosen."""
    import asterisk
    from asterisk.apps.dedup.deduplication import embed, from_index
    from asterisk.apps.dedup.texts import collect
    from asterisk.model.config import prompt_name_of

    index: Any = None
    runtime: Any = None
    prompt_name = arguments.prompt_name
    with contextlib.ExitStack() as stack:
        if arguments.db:
            from asterisk.apps.search import Index

            index = stack.enter_context(Index.open(arguments.db))
        if arguments.artifact:
            opened = asterisk.load(arguments.artifact, threads=arguments.threads)
            runtime = stack.enter_context(opened)
        if not index:
            runtime.prompt(prompt_name)  # refused before anything is read
        elif runtime:  # judged pairs are embedded as the index's documents are
            index.check(runtime, runtime.config.embedding_size)
            prompt_name = prompt_name or index.settings.prompt_name
            if prompt_name is None:
                prompt_name = prompt_name_of("document", runtime.prompts)
        threshold = _threshold(arguments, runtime, prompt_name, (index or runtime).fingerprint)
        if index:
            return *from_index(index, spool), 0, *threshold
        copies, before = collect(_records(arguments, settings, stages), spool), runtime.truncated
        if not copies.rows:
            raise InputError("there is nothing to compare: no text was found")
        vectors = embed(copies, spool, runtime, prompt_name=prompt_name, progress=stages)
        return copies, vectors, runtime.truncated - before, *threshold


def _records(
    arguments: argparse.Namespace, settings: Options, stages: Stages
) -> Iterator[dict[str, str]]:
    from asterisk.apps.dedup.texts import to_record
    from asterisk.cli.reading_options import skip_report
    from asterisk.sources import read, scan

    skipped, number = skip_report(arguments), 0
    for file in scan(arguments.paths, settings, skipped):
        for target in arguments.targets:
            _check_not_input(target, file.path)
        for document in read(file, settings, skipped):
            number += 1
            stages("read", number, 0)
            yield to_record(document)
    if skipped.count:
        report(f"asterisk-dedup: {skipped.summary()}")


def _threshold(
    arguments: argparse.Namespace, runtime: Runtime | None, prompt_name: str | None, space: str
) -> tuple[float, str]:
    """Return the threshold for an embedding space, and how it was chosen."""
    from asterisk.apps.dedup import calibration

    if arguments.precision is None:
        return arguments.threshold or calibration.default_threshold(space), ""
    if arguments.labelled and runtime is not None:
        judged = calibration.judged_cosines(arguments.labelled, runtime, prompt_name)
        points, source = calibration.count_points(*judged), "labelled pairs"
        how = f"by {arguments.labelled}"
    else:
        points, source = calibration.shipped_points(space), "shipped calibration"
        how = "by the calibration that ships, which knows nothing of these texts"
    point = calibration.choose(points, arguments.precision, source)
    return point.threshold, f", {how}: {point}"


@contextlib.contextmanager
def _open(target: Path | None) -> Iterator[TextIO]:
    """Open a file that appears whole or not at all, or standard output."""
    from asterisk.common.files import replacing_file

    if target is None:
        yield sys.stdout
        return
    with (
        replacing_file(target) as staging,
        staging.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        yield file


if __name__ == "__main__":
    sys.exit(main())
