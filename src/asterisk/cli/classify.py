"""`asterisk-classify`: labels for texts, by a trained head or by the labels' names."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli import common
from asterisk.cli.common import Family, Sub, positive, utf8
from asterisk.common.errors import OutputError, UsageError
from asterisk.common.plugins import require
from asterisk.common.terminal import Bar, lines_of, report

if TYPE_CHECKING:
    from asterisk.apps.classify.head import Head
    from asterisk.apps.classify.labelling import Labelled
    from asterisk.evaluation.logistic_regression import Floats
    from asterisk.runtimes.runtime import Runtime

FORMATS = {".tsv": "tsv", ".tab": "tsv", ".txt": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
HELD_OUT = 10  # one text in so many
LABELLED = "label TAB text a line; - for standard input"


def parser(name: str = "") -> argparse.ArgumentParser:
    """Describe the command line of a subcommand, or of them all."""
    return FAMILY.parser(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return FAMILY.run(argv)


def _model_arguments(it: argparse.ArgumentParser) -> None:
    it.add_argument("--model", type=Path, required=True, help="artifact or checkpoint folder")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    what = "before each text, for a head the one it was trained with (default: its own)"
    common.prompt_argument(it, what)


def _train_arguments(it: argparse.ArgumentParser) -> None:
    from asterisk.apps.classify.head import HeadRecipe

    it.add_argument("labelled", type=Path, help=LABELLED)
    it.add_argument("--out", type=Path, required=True, help="file to write the head to")
    _model_arguments(it)
    it.add_argument("--dim", type=positive, help="use the first DIM dimensions only")
    it.add_argument("--dev", type=Path, help="labelled texts to test on (default: a tenth, apart)")
    recipe = it.add_argument_group("recipe")
    for field in fields(HeadRecipe):
        option = f"--{field.name.replace('_', '-')}"
        kind = float if isinstance(field.default, float) else int
        recipe.add_argument(option, type=kind, default=field.default, help="default: %(default)s")


def _evaluate_arguments(it: argparse.ArgumentParser) -> None:
    it.add_argument("head", type=Path, help="file that train wrote")
    it.add_argument("labelled", type=Path, help=LABELLED)
    _model_arguments(it)
    it.add_argument("--json", action="store_true", help="print one JSON object")


def _predict_arguments(it: argparse.ArgumentParser) -> None:
    it.add_argument("head", type=Path, help="file that train wrote")
    _text_arguments(it)


def _zero_shot_arguments(it: argparse.ArgumentParser) -> None:
    from asterisk.apps.classify.head import TEMPERATURE, TEMPLATE

    it.add_argument("--labels", type=utf8, required=True, help="names, separated by commas")
    it.add_argument("--template", type=utf8, default=TEMPLATE, help='e.g. "This text is about {}."')
    it.add_argument("--temperature", type=float, default=TEMPERATURE, help="default: %(default)s")
    _text_arguments(it)


def _text_arguments(it: argparse.ArgumentParser) -> None:
    it.add_argument("texts", nargs="*", type=utf8, help="texts; none and no --file: standard input")
    _model_arguments(it)
    it.add_argument("--file", type=Path, action="append", help="a text a line; may be repeated")
    common.record_arguments(it)
    it.add_argument("--out", type=Path, help="file to write (default: standard output)")
    it.add_argument("--format", choices=("tsv", "jsonl"), help="default: by --out's name, else tsv")
    it.add_argument("--top", type=positive, default=1, help="labels a text gets in JSON lines (1)")
    it.add_argument("--on-long", choices=("truncate", "error"), default="truncate")
    it.add_argument("--on-empty", choices=("error", "skip", "null"), default="error")


def _train(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.classify.head import HeadRecipe, fit
    from asterisk.apps.classify.labelling import held_out, load, score

    torch = require("torch", "train")
    recipe = HeadRecipe(**{it.name: getattr(arguments, it.name) for it in fields(HeadRecipe)})
    if not arguments.out.parent.is_dir() or arguments.out.is_dir():
        raise OutputError(f"cannot write {arguments.out}: no such folder, or one of that name")
    given = load(arguments.labelled)
    dev = load(arguments.dev) if arguments.dev else None
    torch.set_num_threads(1)  # the order of sums, and so the head, must not depend on the cores
    with asterisk.load(arguments.model, threads=arguments.threads) as runtime:
        vectors = _embedded(arguments, runtime, given, arguments.dim)

        def fitted(rows: Sequence[int]) -> Head:
            labels = [given.labels[row] for row in rows]
            with Bar(recipe.steps(len(rows)), "steps") as bar:
                space, progress = runtime.fingerprint, bar.advance
                return fit(vectors[rows], labels, space, recipe, progress=progress)

        every = list(range(len(given.labels)))
        if dev is not None:
            head = fitted(every)
            result = score(head, _embedded(arguments, runtime, dev, arguments.dim), dev.labels)
        else:
            train, test = held_out(given, HELD_OUT)
            result = score(fitted(train), vectors[test], [given.labels[row] for row in test])
            head = fitted(every)
    head.save(arguments.out)
    print(
        f"wrote {arguments.out}: {len(head.labels)} labels from {len(given.labels):,} texts; "
        f"accuracy {result.accuracy:.4f} on {result.texts:,} texts apart"
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.classify.head import Head
    from asterisk.apps.classify.labelling import load, score
    from asterisk.artifact import spaces

    head, given = Head.open(arguments.head), load(arguments.labelled)
    with asterisk.load(arguments.model, threads=arguments.threads) as runtime:
        head.check(spaces(runtime), runtime.config.embedding_size)
        vectors = _embedded(arguments, runtime, given, head.dim)
        result = score(head, vectors, given.labels)
    if arguments.json:
        print(json.dumps(asdict(result)))
        return
    print(f"texts {result.texts:,}  accuracy {result.accuracy:.4f}  macro F1 {result.macro_f1:.4f}")
    if result.unknown:
        unknown = f"{result.unknown} texts have labels the head does not know"
        report(f"asterisk-classify evaluate: {unknown}")


def _embedded(
    arguments: argparse.Namespace, runtime: Runtime, given: Labelled, dim: int | None
) -> Floats:
    from asterisk.runtimes.runtime import encode_records

    how = {"dim": dim, "normalize": True, "show_progress": sys.stderr.isatty()}
    return encode_records(runtime, given.records, arguments.prompt_name, "truncate", **how)


def _predict(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.classify.head import Head
    from asterisk.artifact import spaces

    head = Head.open(arguments.head)
    with asterisk.load(arguments.model, threads=arguments.threads) as runtime:
        head.check(spaces(runtime), runtime.config.embedding_size)
        _label(arguments, runtime, head)


def _zero_shot(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.classify.head import zero_shot

    labels = arguments.labels.split(",")
    how = {name: getattr(arguments, name) for name in ("template", "temperature", "prompt_name")}
    with asterisk.load(arguments.model, threads=arguments.threads) as runtime:
        _label(arguments, runtime, zero_shot(runtime, labels, **how))


def _label(arguments: argparse.Namespace, runtime: Runtime, head: Head) -> None:
    from asterisk.apps.classify.labelling import label
    from asterisk.common.text_files import Record, read_records

    files = arguments.file or []
    if arguments.texts and (files or arguments.json is not None):
        raise UsageError("texts on the command line exclude --file and --json")
    format = arguments.format or common.format_of(arguments.out, FORMATS)
    how = {name: getattr(arguments, name) for name in ("top", "on_long", "on_empty", "prompt_name")}
    records: Iterator[Record]
    if arguments.texts:
        numbered = enumerate(arguments.texts, 1)
        records = (Record(text, f"text {number}") for number, text in numbered)
    else:
        records = read_records(files, json_lines=arguments.json, field=arguments.field)
    label(runtime, head, records, arguments.out, format, **how, total=lambda: lines_of(files))
    if runtime.truncated:
        texts = "1 text" if runtime.truncated == 1 else f"{runtime.truncated} texts"
        report(f"asterisk-classify: {texts} truncated to {runtime.longest} tokens")


SUBS = {
    "train": Sub("train a head on labelled texts", _train_arguments, _train),
    "predict": Sub("label texts with a head", _predict_arguments, _predict),
    "evaluate": Sub("measure a head on labelled texts", _evaluate_arguments, _evaluate),
    "zero-shot": Sub("label texts by the labels' names", _zero_shot_arguments, _zero_shot),
}
FAMILY = Family("asterisk-classify", "Classify texts over frozen embeddings.", SUBS)

if __name__ == "__main__":
    sys.exit(main())
