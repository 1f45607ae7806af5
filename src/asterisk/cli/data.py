"""`asterisk-data`: raw texts in, a corpus to train on out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, fraction, natural, positive, run, words
from asterisk.common.errors import UsageError
from asterisk.common.terminal import Bar, lines_of, report

if TYPE_CHECKING:
    from asterisk.common.corpus import Row
    from asterisk.training.corpora.sources import Source


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-data",
        description="Clean, deduplicate, keep apart from evaluation sets, draw, join and shuffle "
        "texts into a corpus that training maps.",
    )
    add = it.add_argument
    files = ".txt, .tsv or .jsonl file, plain, .gz or .zst, or a folder of them"
    add("source", nargs="*", type=Path, metavar="SOURCE", help=files)
    add("--out", type=Path, help="corpus folder to write")
    sets = "evaluation sets whose texts are left out; may be given several times"
    add("--evaluation", type=Path, action="append", default=[], metavar="FOLDER", help=sets)
    add("--columns", type=words, help="fields of records that are text: a or a,b")
    add("--preset", choices=("newsroom",), help="a preparation by name, see the docs")
    add("--rows", type=positive, metavar="N", help="read of each source at most")
    add = it.add_argument_group("Hugging Face datasets").add_argument
    add("--hugging-face", metavar="NAME", help="dataset to stream, or its folder")
    add("--configuration", metavar="NAME", help="of the dataset")
    add("--split", default="train", help="of the dataset (default: train)")
    add = it.add_argument_group("recipe").add_argument
    for option, reader, default, text in (
        ("--texts", positive, 800_000, "drawn"),
        ("--joined", natural, 20_000, "neighbours put together"),
        ("--generated", natural, 0, "texts of a Markov chain"),
        ("--held-out", natural, 4_000, "drawn from the fixed slice"),
        ("--balance", fraction, 0.75, "1: by size, 0: all alike"),
        ("--longest", _longest, 512, "tokens of a joined text"),
    ):
        add(option, type=reader, default=default, help=f"{text} (%(default)s)")
    fewest = "in each text of a row (1, or preset's)"
    add("--fewest-words", type=positive, metavar="W", help=fewest)
    add("--seed", type=natural, default=0, help="of drawing and order (0)")
    add = it.add_argument_group("instead of that").add_argument
    printed = "print a corpus, a text a line, in order"
    add("--print-texts", type=Path, metavar="CORPUS", help=printed)
    add("--part", choices=("train", "held-out"), default="train", help="default: train")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _data, argv)


def _data(arguments: argparse.Namespace) -> None:
    if arguments.print_texts is None and arguments.out is None:
        raise UsageError("--out is needed")
    from asterisk.common.files import check_replaceable
    from asterisk.training.corpora.clean import Evaluated, RowCounts
    from asterisk.training.corpora.corpus import Corpus, DataRecipe, is_corpus, prepare
    from asterisk.training.corpora.sources import PRESETS, Source, evaluation_texts

    if arguments.print_texts is not None:
        if arguments.source or arguments.out:
            raise UsageError("--print-texts goes with --part alone")
        for text in Corpus.open(arguments.print_texts, arguments.part):
            sys.stdout.buffer.write(text.encode() + b"\n")
        return
    check_replaceable(arguments.out, is_corpus)
    sources, files = _sources(arguments)
    preset = PRESETS.get(arguments.preset)
    arguments.fewest_words = arguments.fewest_words or (preset.fewest_words if preset else 1)
    recipe = DataRecipe(**{it.name: getattr(arguments, it.name) for it in fields(DataRecipe)})
    sets = map(evaluation_texts, arguments.evaluation)
    evaluated = Evaluated(text for texts in sets for text in texts)
    with Bar(lambda: _rows(arguments, files), "rows") as bar:
        watched = [Source(it.name, partial(_watched, it, arguments.rows, bar)) for it in sources]
        counts = prepare(watched, recipe, arguments.out, evaluated=evaluated, on_progress=report)
    width = max(map(len, counts))
    columns = [field.name for field in fields(RowCounts)]
    print(f"{'rows':{width}} " + " ".join(f"{column:>11}" for column in columns))
    for name, count in counts.items():
        print(f"{name:{width}} " + " ".join(f"{number:11,}" for number in astuple(count)))
    if not len(Corpus.open(arguments.out, "held-out")):
        report("no text is held out, so nothing would tell how training goes: give it more rows")
    print(f"wrote {arguments.out}")


def _sources(arguments: argparse.Namespace) -> tuple[list[Source], list[Path]]:
    """Return every source, and those of them that are files."""
    from asterisk.common import corpus
    from asterisk.training.corpora import sources

    pick = None if arguments.preset is None else sources.PRESETS[arguments.preset].pick
    if arguments.columns is not None:
        if pick is not None:
            raise UsageError(f"--preset {arguments.preset} says itself which fields are text")
        pick = sources.columns(arguments.columns)
    kinds = corpus.LINES + (sources.RECORDS if pick else ())
    if not arguments.source and arguments.hugging_face is None:
        raise UsageError("name a file, a folder or a dataset to read")
    files: list[Path] = []
    for path in arguments.source:
        files += corpus.files(path, kinds) if path.is_dir() else [path]
    found = [sources.file_source(file, pick) for file in files]
    if arguments.hugging_face is not None:
        if pick is None:
            raise UsageError("--hugging-face needs --columns, the fields that are text")
        name, split = arguments.hugging_face, arguments.split
        found.append(sources.dataset_source(name, split, pick, arguments.configuration))
    return found, files


def _rows(arguments: argparse.Namespace, files: Sequence[Path]) -> int:
    """Return how many rows will be read, 0 if that is not known before."""
    from asterisk.common.corpus import LINES
    from asterisk.training.corpora.sources import RECORDS

    if arguments.hugging_face or any(file.suffix not in LINES + RECORDS for file in files):
        return 0  # streamed, or compressed
    counts = [lines_of([file]) for file in files]
    return sum(min(count, arguments.rows or count) for count in counts) if all(counts) else 0


def _watched(source: Source, most: int | None, bar: Bar) -> Iterator[Row]:
    for number, row in enumerate(islice(source.read(), most), 1):
        if number % 1_000 == 0:
            bar.advance(1_000)
        yield row


def _longest(text: str) -> int:
    number = natural(text)
    if not 8 <= number <= 512:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, 8 to 512")
    return number


if __name__ == "__main__":
    sys.exit(main())
