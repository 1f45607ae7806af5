"""`asterisk-train`: distil a checkpoint from a teacher."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from asterisk.cli.common import Parser, positive, run
from asterisk.errors import MissingExtra
from asterisk.training.recipe import TrainingRecipe

_READERS: dict[str, Callable[[str], object]] = {
    "int": positive,
    "float": float,
    "str": str,
    "seed": int,
}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-train",
        description="Distil a checkpoint from a teacher. Run it again to go on where it stopped.",
    )
    it.add_argument("data", type=Path, help="folder of .txt.zst and .tsv.zst files")
    it.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    it.add_argument("--run", type=Path, help="working folder (default: runs/ and --out's name)")
    it.add_argument("--threads", type=positive, default=1)
    choices = it.add_argument_group("recipe")
    for field in fields(TrainingRecipe):
        kind = _READERS["seed" if field.name == "seed" else str(field.type)]
        choices.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=field.default,
            help="default: %(default)s",
        )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _train, argv)


def _train(arguments: argparse.Namespace) -> None:
    try:
        import torch

        from asterisk.training.pipeline import Job, train
    except ImportError as missing:
        raise MissingExtra(missing.name or "torch", "train") from None
    from asterisk.files import check_replaceable
    from asterisk.model.checkpoint import is_checkpoint, save
    from asterisk.model.config import ModelConfig

    check_replaceable(arguments.out, is_checkpoint)
    torch.set_num_threads(arguments.threads)
    names = [field.name for field in fields(TrainingRecipe)]
    recipe = TrainingRecipe(**{name: getattr(arguments, name) for name in names})
    run = arguments.run or Path("runs") / arguments.out.name
    job = Job(arguments.data, run, arguments.out.name)
    checkpoint = train(job, recipe, ModelConfig(), _Display())
    save(replace(checkpoint, name=arguments.out.name), arguments.out)
    print(f"wrote {arguments.out}")


class _Display:
    """One line of progress a few times a minute, one at every evaluation."""

    def __init__(self) -> None:
        self.shown = 0.0

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self.shown < 10 and "held_out_cosine" not in figures:
            return
        self.shown = now
        told = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"{stage}: {done:,} of {total:,}  {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
