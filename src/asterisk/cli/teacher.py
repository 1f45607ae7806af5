"""`asterisk-teacher`: a corpus in, what the student is asked for out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from asterisk.cli.common import Parser, positive, run
from asterisk.common import terminal
from asterisk.common.errors import UsageError
from asterisk.common.terminal import Stages

ENGINES = ("int8", "bf16", "torch")
LONGEST = 512


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-teacher",
        description="Ask a teacher about every text of a corpus. Run it again to go on where it "
        "stopped.",
    )
    it.add_argument("corpus", type=Path, metavar="CORPUS", help="folder that asterisk-data wrote")
    it.add_argument("--out", type=Path, required=True, help="folder of targets")
    it.add_argument(
        "--teacher",
        default="all-MiniLM-L6-v2",
        metavar="T",
        help="%(default)s, a model folder, vectors.npy, vectors.jsonl, or https://…/v1",
    )
    it.add_argument(
        "--tokenizer",
        choices=("gpt2", "teacher"),
        default="gpt2",
        help="the student's; the teacher's own for asterisk-train --from-teacher (%(default)s)",
    )
    it.add_argument("--size", type=positive, help="student's dimensions (256, or the teacher's)")
    it.add_argument(
        "--limit", type=_limit, default=512, help="student's tokens of a text (%(default)s)"
    )
    it.add_argument(
        "--sentences-only", action="store_true", help="no targets for tokens: a small folder"
    )
    it.add_argument("--threads", type=positive, default=1, help="texts, or requests, at once (1)")
    models = it.add_argument_group("models")
    models.add_argument("--engine", choices=ENGINES, help="default: int8 or bf16 if it can be")
    models.add_argument(
        "--teacher-length",
        type=_length,
        default=LONGEST,
        metavar="N",
        help="word pieces it reads, or own: what its makers say (%(default)s)",
    )
    boxes = it.add_argument_group("vectors made elsewhere")
    boxes.add_argument(
        "--held-out-vectors", type=Path, metavar="NPY", help="beside a --teacher that is .npy"
    )
    boxes.add_argument("--model", help="name that the service at the address knows it by")
    boxes.add_argument("--dimensions", type=positive, help="to ask the service for")
    boxes.add_argument("--batch", type=positive, default=64, help="texts a request (%(default)s)")
    boxes.add_argument("--requests-per-minute", type=positive, metavar="N")
    boxes.add_argument("--budget-texts", type=positive, metavar="N", help="in this run")
    boxes.add_argument("--budget-tokens", type=positive, metavar="N", help="in this run")
    it.epilog = "A service's key is read from the environment variable ASTERISK_API_KEY."
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _teach, argv)


def _teach(arguments: argparse.Namespace) -> None:
    from asterisk.training.corpora.corpus import PARTS, Corpus
    from asterisk.training.teachers.teach import TeacherOptions, open_teachers, teach

    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is not a folder")
    own_tokens = arguments.tokenizer == "teacher"
    for option, given in (
        ("--size", arguments.size is not None),
        ("--sentences-only", arguments.sentences_only),
        ("--teacher-length", arguments.teacher_length != LONGEST),
    ):
        if own_tokens and given:
            raise UsageError(f"{option} is for students with GPT-2's tokenizer")
    if own_tokens:
        arguments.teacher_length = arguments.limit
    names = [field.name for field in fields(TeacherOptions)]
    options = TeacherOptions(**{name: getattr(arguments, name) for name in names})
    parts = {part: Corpus.open(arguments.corpus, part) for part in PARTS}
    teachers = open_teachers(options, parts, own_tokens=own_tokens, report=terminal.report)
    if own_tokens or arguments.engine == "torch":
        import torch

        torch.set_num_threads(arguments.threads)
    with Stages() as stages:
        teach(
            arguments.corpus,
            arguments.out,
            arguments.teacher,
            teachers,
            limit=arguments.limit,
            size=arguments.size or 256,
            tokens=not arguments.sentences_only,
            own_tokens=own_tokens,
            on_progress=stages,
        )
    print(f"wrote {arguments.out}")


def _limit(text: str) -> int:
    if not 1 <= positive(text) <= 512:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, 1 to 512")
    return int(text)


def _length(text: str) -> int | None:
    return None if text == "own" else positive(text)


if __name__ == "__main__":
    sys.exit(main())
