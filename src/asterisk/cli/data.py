"""`asterisk-data`: raw texts in, a corpus to train on out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, positive, run
from asterisk.cli.values import fraction, natural, words
from asterisk.common.errors import UsageError
from asterisk.common.terminal import Bar, lines_of
from asterisk.common.terminal import report as tell

if TYPE_CHECKING:
    from asterisk.training.corpora.sources import Row, Source
    from asterisk.training.corpora.spool import Removed

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
    kept = it.add_argument_group("recipe")
    kept.add_argument("--texts", type=positive, default=800_000, help="drawn (%(default)s)")
    kept.add_argument(
        "--joined", type=natural, default=20_000, help="neighbours put together (%(default)s)"
    )
    kept.add_argument(
        "--generated", type=natural, default=0, help="texts of a Markov chain (%(default)s)"
    )
    kept.add_argument(
        "--held-out", type=natural, default=4_000, help="drawn from the fixed slice (%(default)s)"
    )
    kept.add_argument(
        "--balance", type=fraction, default=0.75, help="1: by size, 0: all alike (%(default)s)"
    )
    kept.add_argument(
        "--longest", type=_longest, default=512, help="tokens of a joined text (%(default)s)"
    )
    kept.add_argument(
        "--fewest-words", type=positive, metavar="W", help="in each text of a row (1, or preset's)"
    )
    kept.add_argument("--seed", type=natural, default=0, help="of drawing and order (0)")
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
    if arguments.print_texts is not None:
        if arguments.source or arguments.out:
            raise UsageError("--print-texts goes with --part alone")
        _print(arguments.print_texts, arguments.part)
        return
    if arguments.out is None:
        raise UsageError("--out is needed")
    from asterisk.common.files import check_replaceable
    from asterisk.training.corpora.clean import Evaluated
    from asterisk.training.corpora.evaluation_texts import evaluation_texts
    from asterisk.training.corpora.prepare import DataRecipe, is_corpus, prepare
    from asterisk.training.corpora.presets import PRESETS as PREPARATIONS

    check_replaceable(arguments.out, is_corpus)
    sources = list(_sources(arguments))
    preset = PREPARATIONS.get(arguments.preset)
    recipe = DataRecipe(
        texts=arguments.texts,
        joined=arguments.joined,
        generated=arguments.generated,
        held_out=arguments.held_out,
        balance=arguments.balance,
        longest=arguments.longest,
        fewest_words=arguments.fewest_words or (preset.fewest_words if preset else 1),
        seed=arguments.seed,
    )
    evaluated = Evaluated(
        text for folder in arguments.evaluation for text in evaluation_texts(folder)
    )
    with Bar(lambda: _rows(arguments), "rows") as bar:
        told = prepare(
            [_watched(source.first(arguments.rows), bar) for source in sources],
            recipe,
            arguments.out,
            evaluated=evaluated,
            progress=tell,
        )
    print(_report(told), end="")
    from asterisk.training.corpora.corpus import Corpus

    if not len(Corpus.open(arguments.out, "held-out")):
        tell("no text is held out, so nothing would tell how training goes: give it more rows")
    print(f"wrote {arguments.out}")


def _sources(arguments: argparse.Namespace) -> Iterator[Source]:
    from asterisk.training.corpora.hugging_face import dataset_source
    from asterisk.training.corpora.presets import PRESETS as PREPARATIONS
    from asterisk.training.corpora.sources import columns, file_source

    pick = None
    if arguments.preset is not None and arguments.columns is not None:
        raise UsageError(f"--preset {arguments.preset} says itself which fields are text")
    if arguments.preset is not None:
        pick = PREPARATIONS[arguments.preset].pick
    elif arguments.columns is not None:
        pick = columns(arguments.columns)
    if not arguments.source and arguments.hugging_face is None:
        raise UsageError("name a file, a folder or a dataset to read")
    for file in _files(arguments):
        yield file_source(file, pick)
    if arguments.hugging_face is not None:
        if pick is None:
            raise UsageError("--hugging-face needs --columns, the fields that are text")
        yield dataset_source(arguments.hugging_face, arguments.split, pick, arguments.configuration)


def _files(arguments: argparse.Namespace) -> list[Path]:
    from asterisk.training.corpora.sources import LINES, RECORDS, files

    kinds = LINES if arguments.preset is None and arguments.columns is None else LINES + RECORDS
    return [
        file
        for path in arguments.source
        for file in (files(path, kinds) if path.is_dir() else [path])
    ]


def _rows(arguments: argparse.Namespace) -> int:
    """Return how many rows will be read, 0 where nobody knows before they are."""
    from asterisk.training.corpora.sources import LINES, RECORDS

    found = _files(arguments)
    if arguments.hugging_face or any(file.suffix not in LINES + RECORDS for file in found):
        return 0  # streamed, or compressed
    counts = [lines_of([file]) for file in found]
    return sum(min(count, arguments.rows or count) for count in counts) if all(counts) else 0


def _watched(source: Source, bar: Bar) -> Source:
    from asterisk.training.corpora.sources import Source

    def read() -> Iterator[Row]:
        for number, row in enumerate(source.read(), 1):
            if number % 1_000 == 0:
                bar.advance(1_000)
            yield row

    return Source(source.name, read)


def _report(told: dict[str, Removed]) -> str:
    width = max(len(name) for name in told)
    lines = [f"{'rows':{width}} {'kept':>11} {'short':>11} {'repeated':>11} {'evaluated':>11}"]
    for name, it in told.items():
        counts = (it.kept, it.short, it.repeated, it.evaluated)
        lines.append(f"{name:{width}} " + " ".join(f"{count:11,}" for count in counts))
    return "\n".join(lines) + "\n"


def _print(folder: Path, part: str) -> None:
    from asterisk.training.corpora.corpus import Corpus

    for text in Corpus.open(folder, part):
        sys.stdout.buffer.write(text.encode() + b"\n")


def _longest(text: str) -> int:
    number = natural(text)
    if not 8 <= number <= 512:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, 8 to 512")
    return number


if __name__ == "__main__":
    sys.exit(main())
