"""`asterisk-data`: raw texts in, a corpus to train on out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, fraction, natural, positive, run, words
from asterisk.common.errors import UsageError
from asterisk.common.terminal import Bar, lines_of, report

if TYPE_CHECKING:
    from asterisk.common.corpus import Row
    from asterisk.training.corpora.sources import Source

PRESETS = ("newsroom",)
PARTS = ("train", "held-out")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-data",
        description="Clean, deduplicate, keep apart from evaluation sets, draw, join and shuffle "
        "texts into a corpus that training maps.",
    )
    it.add_argument(
        "source",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help=".txt, .tsv or .jsonl file, plain, .gz or .zst, or a folder of them",
    )
    it.add_argument("--out", type=Path, help="corpus folder to write")
    it.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="evaluation sets whose texts are left out; may be given several times",
    )
    it.add_argument("--columns", type=words, help="fields of records that are text: a or a,b")
    it.add_argument("--preset", choices=PRESETS, help="a preparation by name, see the docs")
    it.add_argument("--rows", type=positive, metavar="N", help="read of each source at most")
    hub = it.add_argument_group("Hugging Face datasets")
    hub.add_argument("--hugging-face", metavar="NAME", help="dataset to stream, or its folder")
    hub.add_argument("--configuration", metavar="NAME", help="of the dataset")
    hub.add_argument("--split", default="train", help="of the dataset (default: train)")
    recipe = it.add_argument_group("recipe")
    for option, reader, default, text in (
        ("--texts", positive, 800_000, "drawn"),
        ("--joined", natural, 20_000, "neighbours put together"),
        ("--generated", natural, 0, "texts of a Markov chain"),
        ("--held-out", natural, 4_000, "drawn from the fixed slice"),
        ("--balance", fraction, 0.75, "1: by size, 0: all alike"),
        ("--longest", _longest, 512, "tokens of a joined text"),
    ):
        recipe.add_argument(option, type=reader, default=default, help=f"{text} (%(default)s)")
    recipe.add_argument(
        "--fewest-words", type=positive, metavar="W", help="in each text of a row (1, or preset's)"
    )
    recipe.add_argument("--seed", type=natural, default=0, help="of drawing and order (0)")
    others = it.add_argument_group("instead of that")
    others.add_argument(
        "--print-texts", type=Path, metavar="CORPUS", help="print a corpus, a text a line, in order"
    )
    others.add_argument("--part", choices=PARTS, default="train", help="default: train")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _data, argv)


def _data(arguments: argparse.Namespace) -> None:
    if arguments.print_texts is None and arguments.out is None:
        raise UsageError("--out is needed")
    from asterisk.common.files import check_replaceable
    from asterisk.training.corpora.clean import Evaluated
    from asterisk.training.corpora.corpus import Corpus, DataRecipe, is_corpus, prepare
    from asterisk.training.corpora.sources import PRESETS as PREPARATIONS
    from asterisk.training.corpora.sources import Source, evaluation_texts

    if arguments.print_texts is not None:
        if arguments.source or arguments.out:
            raise UsageError("--print-texts goes with --part alone")
        for text in Corpus.open(arguments.print_texts, arguments.part):
            sys.stdout.buffer.write(text.encode() + b"\n")
        return
    check_replaceable(arguments.out, is_corpus)
    sources, files = _sources(arguments)
    preset = PREPARATIONS.get(arguments.preset)
    arguments.fewest_words = arguments.fewest_words or (preset.fewest_words if preset else 1)
    recipe = DataRecipe(**{field.name: vars(arguments)[field.name] for field in fields(DataRecipe)})
    evaluated = Evaluated(
        text for folder in arguments.evaluation for text in evaluation_texts(folder)
    )
    limited = [source.first(arguments.rows) for source in sources]
    with Bar(lambda: _rows(arguments, files), "rows") as bar:
        watched = [Source(source.name, partial(_watched, source, bar)) for source in limited]
        counts = prepare(watched, recipe, arguments.out, evaluated=evaluated, on_progress=report)
    columns = ("kept", "short", "repeated", "evaluated")
    width = max(map(len, counts))
    print(f"{'rows':{width}} " + " ".join(f"{column:>11}" for column in columns))
    for name, count in counts.items():
        row = " ".join(f"{getattr(count, column):11,}" for column in columns)
        print(f"{name:{width}} {row}")
    if not len(Corpus.open(arguments.out, "held-out")):
        report("no text is held out, so nothing would tell how training goes: give it more rows")
    print(f"wrote {arguments.out}")


def _sources(arguments: argparse.Namespace) -> tuple[list[Source], list[Path]]:
    """Return every source, and those of them that are files."""
    from asterisk.common import corpus
    from asterisk.training.corpora import sources

    pick = None
    kinds: tuple[str, ...] = corpus.LINES + sources.RECORDS
    if arguments.preset is not None and arguments.columns is not None:
        raise UsageError(f"--preset {arguments.preset} says itself which fields are text")
    if arguments.preset is not None:
        pick = sources.PRESETS[arguments.preset].pick
    elif arguments.columns is not None:
        pick = sources.columns(arguments.columns)
    else:
        kinds = corpus.LINES
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


def _watched(source: Source, bar: Bar) -> Iterator[Row]:
    for number, row in enumerate(source.read(), 1):
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
