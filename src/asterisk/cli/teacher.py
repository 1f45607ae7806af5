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

LONGEST = 512


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-teacher",
        description="Ask a teacher about every text of a corpus. Run it again to go on where it "
        "stopped.",
    )
    add = it.add_argument
    add("corpus", type=Path, metavar="CORPUS", help="folder that asterisk-data wrote")
    add("--out", type=Path, required=True, help="folder of targets")
    kinds = "%(default)s, a model folder, vectors.npy, vectors.jsonl, or https://…/v1"
    add("--teacher", default="all-MiniLM-L6-v2", metavar="T", help=kinds)
    whose = "the student's; the teacher's own for asterisk-train --from-teacher (%(default)s)"
    add("--tokenizer", choices=("gpt2", "teacher"), default="gpt2", help=whose)
    add("--size", type=positive, help="student's dimensions (256, or the teacher's)")
    add("--limit", type=_limit, default=512, help="student's tokens of a text (%(default)s)")
    add("--sentences-only", action="store_true", help="no targets for tokens: a small folder")
    add("--threads", type=positive, default=1, help="texts, or requests, at once (1)")
    add = it.add_argument_group("models").add_argument
    add("--engine", choices=("int8", "bf16", "torch"), help="default: int8 or bf16 if it can be")
    pieces = "word pieces it reads, or own: what its makers say (%(default)s)"
    add("--teacher-length", type=_length, default=LONGEST, metavar="N", help=pieces)
    add = it.add_argument_group("vectors made elsewhere").add_argument
    add("--held-out-vectors", type=Path, metavar="NPY", help="beside a --teacher that is .npy")
    add("--model", help="name that the service at the address knows it by")
    add("--dimensions", type=positive, help="to ask the service for")
    add("--batch", type=positive, default=64, help="texts a request (%(default)s)")
    add("--requests-per-minute", type=positive, metavar="N")
    add("--budget-texts", type=positive, metavar="N", help="in this run")
    add("--budget-tokens", type=positive, metavar="N", help="in this run")
    it.epilog = "A service's key is read from the environment variable ASTERISK_API_KEY."
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _teach, argv)


def _teach(arguments: argparse.Namespace) -> None:
    from asterisk.training.teachers.teach import TeacherOptions, teach

    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is not a folder")
    for option, given in (
        ("--size", arguments.size is not None),
        ("--sentences-only", arguments.sentences_only),
        ("--teacher-length", arguments.teacher_length != LONGEST),
    ):
        if given and arguments.tokenizer == "teacher":
            raise UsageError(f"{option} is for students with GPT-2's tokenizer")
    options = TeacherOptions(
        **{it.name: getattr(arguments, it.name) for it in fields(TeacherOptions)}
    )
    with Stages() as stages:
        teach(arguments.corpus, arguments.out, options, report=terminal.report, on_progress=stages)
    print(f"wrote {arguments.out}")


def _limit(text: str) -> int:
    if not 1 <= positive(text) <= 512:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of tokens, 1 to 512")
    return int(text)


def _length(text: str) -> int | None:
    return None if text == "own" else positive(text)


if __name__ == "__main__":
    sys.exit(main())
