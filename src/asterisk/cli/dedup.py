"""`asterisk-dedup`: near-duplicates in files or an index, and one record for each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from asterisk.cli.common import Parser, format_of, fraction, positive, prompt_argument, run
from asterisk.cli.reading_options import add_reading_options as source_arguments
from asterisk.cli.reading_options import reading_options as options
from asterisk.cli.reading_options import skip_report as report
from asterisk.common.errors import InputError, OutputError, UsageError
from asterisk.common.terminal import Stages
from asterisk.common.terminal import report as tell

if TYPE_CHECKING:
    from asterisk.apps.dedup.result import Found
    from asterisk.apps.dedup.spool import Spool
    from asterisk.runtimes.runtime import Runtime
    from asterisk.sources import Document

FORMATS = {".txt": "report", ".json": "json", ".tsv": "tsv", ".tab": "tsv"}
KEPT = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tsv": "tsv", ".tab": "tsv"}
NUMBERS = ("differ", "ignore")  # as in asterisk.apps.dedup.numbers, which needs numpy
BESIDE = ("-wal", "-shm", "-journal", "-lock")  # an index's own files


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
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
        help="whether texts whose numbers contradict one another differ (default), or no matter",
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
    source_arguments(it)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    # Threads of our own multiply blocks; numpy's beside them would only be in the way. It reads
    # this when it is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return run(parser(), _dedup, argv)


def _dedup(arguments: argparse.Namespace) -> None:
    _check(arguments)
    from asterisk.apps.dedup.spool import Spool

    with Spool() as spool:
        if arguments.db:
            found, chosen = _of_index(arguments, spool)
        else:
            found, chosen = _of_files(arguments, spool)
        _write(arguments, spool, found, chosen)


def _check(arguments: argparse.Namespace) -> None:
    settings = options(arguments)
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
    targets = [target for target in (arguments.out, arguments.keep) if target]
    databases = [one.path for one in settings.databases]
    databases += [arguments.db] if arguments.db else []
    for target in targets:
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: no such folder")
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {target}: it is not a plain file")
        for given in filter(None, (arguments.db, arguments.labelled)):
            _check_other(target, given)
        _check_beside(target, databases)
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError("--out and --keep are the same file")
    arguments.format = arguments.format or format_of(arguments.out, FORMATS)
    format_of(arguments.keep, KEPT, "--keep")


def _check_other(target: Path, given: Path) -> None:
    try:
        same = target.samefile(given)
    except OSError:
        return
    if same:
        raise UsageError(f"cannot write {target}: it is read from, and would be lost")


def _check_beside(target: Path, databases: Sequence[Path]) -> None:
    # By name, for they come and go; by the real name too, which SQLite goes by.
    names = {os.path.realpath(target), str(target.absolute())}
    for database in databases:
        beside = {
            path + end
            for path in (os.path.realpath(database), str(database.absolute()))
            for end in BESIDE
        }
        if names & beside:
            raise UsageError(f"cannot write {target}: it belongs to the database {database}")


def _of_files(arguments: argparse.Namespace, spool: Spool) -> tuple[Found, str]:
    import asterisk
    from asterisk.apps.dedup.gathering import gathered, text_of
    from asterisk.apps.dedup.run import near

    with asterisk.load(arguments.artifact, threads=arguments.threads) as runtime:
        runtime.prompt(arguments.prompt_name)  # refused before anything is read
        threshold, chosen = _threshold(
            arguments, runtime.fingerprint, runtime, arguments.prompt_name
        )
        with Stages() as stages:
            copies = gathered(_documents(arguments, stages), spool)
            found = near(
                copies,
                spool,
                runtime,
                threshold,
                text_of=text_of,
                threads=arguments.threads,
                numbers=arguments.numbers,
                prompt_name=arguments.prompt_name,
                progress=stages,
            )
        return found, chosen


def _documents(arguments: argparse.Namespace, stages: Stages) -> Iterator[Document]:
    from asterisk.sources import read, scan

    settings, skipped = options(arguments), report(arguments)
    targets = [target for target in (arguments.out, arguments.keep) if target]
    number = 0
    for file in scan(arguments.paths, settings, skipped):
        for target in targets:
            _check_other(target, file.path)
        for document in read(file, settings, skipped):
            number += 1
            stages("read", number, 0)
            yield document
    if skipped.count:
        tell(f"asterisk-dedup: {skipped.summary()}")
    if not number:
        raise InputError("there is nothing to compare: no text was found")


def _of_index(arguments: argparse.Namespace, spool: Spool) -> tuple[Found, str]:
    import asterisk
    from asterisk.apps.dedup.gathering import from_index, text_of
    from asterisk.apps.dedup.run import clustered, numbers_of
    from asterisk.apps.search import Index
    from asterisk.model.config import prompt_name_of

    with Index.open(arguments.db) as index:
        if arguments.artifact:
            with asterisk.load(arguments.artifact, threads=arguments.threads) as runtime:
                index.check(runtime, runtime.config.embedding_size)
                # Judged pairs are embedded as the index's documents are.
                prompt_name = arguments.prompt_name or index.facts.prompt_name
                if prompt_name is None:
                    prompt_name = prompt_name_of("document", runtime.prompts)
                threshold, chosen = _threshold(arguments, index.fingerprint, runtime, prompt_name)
        else:
            threshold, chosen = _threshold(arguments, index.fingerprint, None, None)
        copies, vectors = from_index(index, spool)
    numbers = numbers_of(copies, spool, text_of) if arguments.numbers == NUMBERS[0] else None
    with Stages() as stages:
        found = clustered(
            copies,
            vectors,
            threshold,
            threads=arguments.threads,
            numbers=numbers,
            progress=stages,
        )
    return found, chosen


def _threshold(
    arguments: argparse.Namespace,
    fingerprint: str,
    runtime: Runtime | None,
    prompt_name: str | None,
) -> tuple[float, str]:
    from asterisk.apps.dedup.calibration import chosen, counted, default_threshold, judged, shipped

    if arguments.precision is None:
        return arguments.threshold or default_threshold(fingerprint), ""
    if arguments.labelled and runtime is not None:
        points = counted(*judged(arguments.labelled, runtime, prompt_name))
        point = chosen(points, arguments.precision, "labelled pairs")
        where = f"by {arguments.labelled}"
    else:
        point = chosen(shipped(fingerprint), arguments.precision, "shipped calibration")
        where = "by the calibration that ships, which knows nothing of these texts"
    return point.threshold, f", {where}: {point.told()}"


def _write(arguments: argparse.Namespace, spool: Spool, found: Found, chosen: str) -> None:
    from asterisk.apps.dedup import printing
    from asterisk.apps.dedup.gathering import facts

    def of(row: int) -> dict[str, str]:
        return facts(spool, row)

    if arguments.keep:
        table = format_of(arguments.keep, KEPT, "--keep") == "tsv"
        _replace(arguments.keep, lambda file: printing.kept(found, of, table, file))

    def write(file: TextIO) -> None:
        printing.write(found, of, arguments.format, file, numbers=arguments.numbers, chosen=chosen)

    if arguments.out:
        _replace(arguments.out, write)
    else:
        write(sys.stdout)


def _replace(target: Path, write: Callable[[TextIO], None]) -> None:
    from asterisk.common.files import replacing_file

    with (
        replacing_file(target) as staging,
        staging.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        write(file)


if __name__ == "__main__":
    sys.exit(main())
