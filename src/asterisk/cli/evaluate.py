"""`asterisk-eval`: how good a model's vectors are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, natural, positive, run
from asterisk.common import terminal
from asterisk.common.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from asterisk.evaluation.report import Report

PRECISIONS = ("float32", "int8", "binary")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-eval",
        description="Measure similarity, classification, retrieval and clustering in one table, "
        "with intervals of each model's difference to the baseline.",
    )
    it.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="checkpoint, artifact or sentence-transformers folder; all-MiniLM-L6-v2; tfidf",
    )
    it.add_argument(
        "--data", type=Path, action="append", help="folder of sets; may be given several times"
    )
    it.add_argument("--sets", type=_names, default=(), help="some sets only, commas between")
    it.add_argument("--split", choices=("dev", "test"), default="test", help="default: test")
    it.add_argument("--teacher", help="measured too; asked for documents where a model can")
    it.add_argument("--teacher-length", type=positive, help="tokens the teacher reads")
    it.add_argument("--dim", type=_counts, default=(), help="first dimensions kept: 128 or 128,64")
    it.add_argument(
        "--precision",
        type=_precisions,
        default=("float32",),
        help="of output vectors: float32, int8, binary, commas between",
    )
    it.add_argument("--baseline", metavar="MODEL", help="compared with; default: the first")
    it.add_argument("--resamples", type=positive, default=1_000, help="default: 1000")
    it.add_argument("--seed", type=natural, default=0, help="of resamples and --make-long (0)")
    it.add_argument("--threads", type=positive, default=1, help="to encode with")
    it.add_argument(
        "--head", action="store_true", help="also train asterisk-classify's head on each set"
    )
    it.add_argument("--out", type=Path, help="JSON file to write beside printing the table")
    others = it.add_argument_group("instead of that")
    one = others.add_mutually_exclusive_group()
    one.add_argument("--render", type=Path, metavar="JSON", help="print the table of a past run")
    one.add_argument("--mteb", type=_names, metavar="TASKS", help="run tasks of the mteb package")
    one.add_argument("--make-long", type=Path, metavar="OUT", help="make sets of long texts")
    one.add_argument("--make-dev", type=Path, metavar="OUT", help="make dev sets of --corpus")
    others.add_argument(
        "--corpus", type=Path, help="training folder whose held-out slice those two use"
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _evaluate, argv)


def _evaluate(arguments: argparse.Namespace) -> None:
    from asterisk.evaluation.report import markdown

    if arguments.render is not None:
        print(markdown(_read(arguments.render)), end="")
        return
    if arguments.make_long is not None or arguments.make_dev is not None:
        _make_sets(arguments)
        return
    if not arguments.models:
        raise UsageError("name at least one model")
    out: Path | None = arguments.out
    # A file that could not be written is refused before minutes are spent.
    if out is not None and not out.absolute().parent.is_dir():
        raise OutputError(f"cannot write {out}: its folder does not exist")
    if out is not None and out.exists() and not out.is_file():
        raise OutputError(f"cannot write {out}: it is not a plain file")
    report = _report(arguments)
    print(markdown(report), end="", flush=True)
    if out is not None:
        from asterisk.common.files import replacing_file

        with replacing_file(out) as staging:
            staging.write_text(report.to_json(), "utf-8")


def _report(arguments: argparse.Namespace) -> Report:
    if arguments.mteb:
        from asterisk.evaluation import mteb

        return mteb.evaluate(arguments.models, mteb.tasks_named(arguments.mteb))
    from asterisk.evaluation.run import Request, evaluate

    _need(arguments.data, "--data")
    options = {field: getattr(arguments, field) for field in Request.__dataclass_fields__}
    return evaluate(Request(**options), terminal.report)


def _make_sets(arguments: argparse.Namespace) -> None:
    from asterisk.evaluation.derived_sets import make_dev, make_long

    out, corpus = arguments.make_long or arguments.make_dev, arguments.corpus
    if arguments.make_long is not None:
        _need(arguments.data, "--data")
        options = {"split": arguments.split, "corpus": corpus, "seed": arguments.seed}
        sizes = make_long(out, arguments.data, **options, on_progress=terminal.report)
    else:
        _need(corpus, "--corpus")
        sizes = make_dev(out, corpus, on_progress=terminal.report)
    print(f"{out}: " + ", ".join(f"{name} {n:,}" for name, n in sizes.items()))


def _need(value: object, option: str) -> None:
    if not value:
        raise UsageError(f"{option} is needed")


def _read(path: Path) -> Report:
    from asterisk.evaluation.report import Report

    try:
        return Report.from_json(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise InputError(f"{path}: {reason}") from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise argparse.ArgumentTypeError("no name given")
    return names


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(positive(part) for part in text.split(",")))


def _precisions(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in PRECISIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of: {', '.join(PRECISIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
