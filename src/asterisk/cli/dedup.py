"""`asterisk-dedup`: near-duplicates in files or an index, and one record for each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from asterisk.cli.common import Parser, format_of, fraction, positive, prompt_argument, run
from asterisk.common import terminal
from asterisk.common.errors import InputError, OutputError, UsageError
from asterisk.common.terminal import Stages

if TYPE_CHECKING:
    from asterisk.apps.dedup.texts import Copies, Spool
    from asterisk.apps.dedup.vectors import Vectors
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Document

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
    it.add_argument(
        "--labelled", type=Path, help="judged pairs for --precision: 0 or 1, text, text, by tabs"
    )
    it.add_argument(
        "--numbers",
        choices=NUMBERS,
        default=NUMBERS[0],
        help="whether texts whose numbers contradict each other differ (default), or may be one",
    )
    prompt_argument(it, "before each text (default: its own default)")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    it.add_argument(
        "--format",
        choices=sorted({*FORMATS.values()}),
        help="default: by --out's name, else report",
    )
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
    _check(arguments)
    from asterisk.apps.dedup.deduplication import cluster, numbers_of, write_found, write_kept
    from asterisk.apps.dedup.texts import Spool, compared_text

    with Spool(compared_text) as spool:
        with Stages() as stages:
            read = _from_index if arguments.db else _from_files
            copies, vectors, truncated, threshold, chosen = read(arguments, spool, stages)
            found = cluster(
                copies,
                vectors,
                threshold,
                threads=arguments.threads,
                numbers=numbers_of(copies, spool) if arguments.numbers == NUMBERS[0] else None,
                progress=stages,
                cut=truncated,
            )
        if arguments.keep:
            format = format_of(arguments.keep, KEEP_FORMATS, "--keep")
            _replace(arguments.keep, lambda file: write_kept(found, spool, format, file))

        def write(file: TextIO) -> None:
            write_found(
                found, spool, arguments.format, file, numbers=arguments.numbers, chosen=chosen
            )

        if arguments.out:
            _replace(arguments.out, write)
        else:
            write(sys.stdout)


def _check(arguments: argparse.Namespace) -> None:
    from asterisk.cli.reading_options import reading_options

    settings = reading_options(arguments)
    if bool(arguments.paths or settings.databases) == bool(arguments.db):
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
    databases = [one.path for one in settings.databases]
    databases += [arguments.db] if arguments.db else []
    targets = [target for target in (arguments.out, arguments.keep) if target]
    for target in targets:
        _check_target(target, databases, [arguments.db, arguments.labelled])
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError("--out and --keep are the same file")
    arguments.format = arguments.format or format_of(arguments.out, FORMATS)
    format_of(arguments.keep, KEEP_FORMATS, "--keep")


def _check_target(target: Path, databases: Sequence[Path], sources: Sequence[Path | None]) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: no such folder")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {target}: it is not a plain file")
    for source in filter(None, sources):
        _check_not_input(target, source)
    # By name, for they come and go; by the real name too, which SQLite goes by.
    names = {os.path.realpath(target), str(target.absolute())}
    for database in databases:
        paths = (os.path.realpath(database), str(database.absolute()))
        if names & {path + end for path in paths for end in OWN_FILES}:
            raise UsageError(f"cannot write {target}: it belongs to the database {database}")


def _check_not_input(target: Path, source: Path) -> None:
    try:
        same = target.samefile(source)
    except OSError:
        return
    if same:
        raise UsageError(f"cannot write {target}: it is read from, and would be lost")


def _from_files(
    arguments: argparse.Namespace, spool: Spool, stages: Stages
) -> tuple[Copies, Vectors, int, float, str]:
    """Return rows, vectors, how many texts were truncated, the threshold and how it was chosen."""
    import asterisk
    from asterisk.apps.dedup.deduplication import embed
    from asterisk.apps.dedup.texts import Collector, to_record

    prompt_name = arguments.prompt_name
    with asterisk.load(arguments.artifact, threads=arguments.threads) as runtime:
        runtime.prompt(prompt_name)  # refused before anything is read
        threshold, chosen = _threshold(arguments, runtime.fingerprint, runtime, prompt_name)
        collector = Collector(spool)
        for number, document in enumerate(_documents(arguments), 1):
            record = to_record(document)
            collector.append(record, spool.text_of(record))
            stages("read", number, 0)
        copies, before = collector.finish(), runtime.truncated
        if not copies.rows:
            raise InputError("there is nothing to compare: no text was found")
        vectors = embed(copies, spool, runtime, prompt_name=prompt_name, progress=stages)
        return copies, vectors, runtime.truncated - before, threshold, chosen


def _documents(arguments: argparse.Namespace) -> Iterator[Document]:
    from asterisk.cli.reading_options import reading_options, skip_report
    from asterisk.sources import read, scan

    settings, skipped = reading_options(arguments), skip_report(arguments)
    for file in scan(arguments.paths, settings, skipped):
        for target in filter(None, (arguments.out, arguments.keep)):
            _check_not_input(target, file.path)
        yield from read(file, settings, skipped)
    if skipped.count:
        terminal.report(f"asterisk-dedup: {skipped.summary()}")


def _from_index(
    arguments: argparse.Namespace, spool: Spool, _: Stages
) -> tuple[Copies, Vectors, int, float, str]:
    import asterisk
    from asterisk.apps.dedup.deduplication import from_index
    from asterisk.apps.search import Index
    from asterisk.model.config import prompt_name_of

    with Index.open(arguments.db) as index:
        if arguments.artifact:
            with asterisk.load(arguments.artifact, threads=arguments.threads) as runtime:
                index.check(runtime, runtime.config.embedding_size)
                # Judged pairs are embedded as the index's documents are.
                prompt_name = arguments.prompt_name or index.settings.prompt_name
                if prompt_name is None:
                    prompt_name = prompt_name_of("document", runtime.prompts)
                threshold, chosen = _threshold(arguments, index.fingerprint, runtime, prompt_name)
        else:
            threshold, chosen = _threshold(arguments, index.fingerprint, None, None)
        copies, vectors = from_index(index, spool)
    return copies, vectors, 0, threshold, chosen


def _threshold(
    arguments: argparse.Namespace,
    fingerprint: str,
    runtime: Runtime | None,
    prompt_name: str | None,
) -> tuple[float, str]:
    from asterisk.apps.dedup import calibration

    if arguments.precision is None:
        return arguments.threshold or calibration.default_threshold(fingerprint), ""
    if arguments.labelled and runtime is not None:
        judged = calibration.judged_cosines(arguments.labelled, runtime, prompt_name)
        points, source = calibration.count_points(*judged), "labelled pairs"
        how = f"by {arguments.labelled}"
    else:
        points, source = calibration.shipped_points(fingerprint), "shipped calibration"
        how = "by the calibration that ships, which knows nothing of these texts"
    point = calibration.choose(points, arguments.precision, source)
    return point.threshold, f", {how}: {point}"


def _replace(target: Path, write: Callable[[TextIO], None]) -> None:
    from asterisk.common.files import replacing_file

    with (
        replacing_file(target) as staging,
        staging.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        write(file)


if __name__ == "__main__":
    sys.exit(main())
