"""`asterisk-train`: distil a checkpoint from a teacher's targets."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import MissingExtra, UsageError
from asterisk.common.terminal import report as tell
from asterisk.training.recipe import PRESETS, TrainingRecipe
from asterisk.training.teachers.target_facts import in_own_tokens

if TYPE_CHECKING:
    from asterisk.training.pipeline import Job

SHAPE = {
    "heads": "num_heads",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "positions": "max_positions",
}
TOLD_EVERY = 10.0  # seconds


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-train",
        description="Distil a checkpoint from a teacher's targets. Run it again to go on where it "
        "stopped; under torchrun, all processes make each step together.",
    )
    it.add_argument("corpus", type=Path, help="folder that asterisk-data wrote")
    it.add_argument("targets", type=Path, help="folder that asterisk-teacher wrote")
    it.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    it.add_argument(
        "--run",
        "--working-folder",  # torchrun takes --run for an abbreviation of its own
        type=Path,
        help="working folder (default: runs/ and --out's name)",
    )
    it.add_argument("--texts", type=positive, help="only the first texts, in whole shards of 8192")
    it.add_argument("--follow", action="store_true", help="wait for a teacher that is at work")
    it.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="CHECKPOINT",
        help="begin with its weights instead of the teacher's reading of each token",
    )
    it.add_argument(
        "--from-teacher",
        action="store_true",
        help="begin as the teacher itself, or those of its --layers; targets in its tokens",
    )
    it.add_argument("--teacher", help="the teacher's name, where the targets do not say")
    it.add_argument("--threads", type=positive, default=1, help="a process (default: 1)")
    it.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    it.add_argument(
        "--bag",
        choices=("line", "only", "no"),
        help="the best static token table: trained too, for its line in the curve (default "
        "unless targets are in the teacher's tokens); "
        "nothing else, --out then being a sentence-transformers folder; or not at all",
    )
    it.add_argument("--evaluation", type=Path, help="asterisk-eval's JSON, for the model card")
    it.add_argument(
        "--licence",
        type=Path,
        metavar="FILE",
        help="put beside the weights (default: the LICENSE of what it begins with)",
    )
    shape = it.add_argument_group("model")
    shape.add_argument(
        "--layers",
        type=_layers,
        metavar="N|I,J",
        help="how many (default: 2); or which of the layers it begins with, counted from 0",
    )
    shape.add_argument(
        "--width", type=positive, help="narrow what it begins with to so many of the teacher's axes"
    )
    shape.add_argument("--heads", type=positive, help="default: 2")
    shape.add_argument(
        "--hidden", type=positive, help="default: the targets' size; else with a projection to it"
    )
    shape.add_argument("--intermediate", type=positive, help="default: four times --hidden")
    shape.add_argument("--positions", type=positive, help="default: 512")
    choices = it.add_argument_group("recipe, by a preset and what differs from it")
    choices.add_argument(
        "--preset", choices=tuple(PRESETS), help="default: asterisk, or from-teacher"
    )
    for field in fields(TrainingRecipe):
        option = f"--{field.name.replace('_', '-')}"
        default = getattr(PRESETS["asterisk"], field.name)
        if isinstance(default, bool):
            choices.add_argument(
                option, action=argparse.BooleanOptionalAction, help=f"asterisk: {default}"
            )
        else:
            choices.add_argument(option, type=_READERS[type(default)], help=f"asterisk: {default}")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _train, argv)


def _train(arguments: argparse.Namespace) -> None:
    if arguments.from_teacher and arguments.start is not None:
        raise UsageError("--from-teacher and --from: a student begins once")
    arguments.run = arguments.run or Path("runs") / arguments.out.name
    own_tokens = in_own_tokens(arguments.targets)
    bag: Literal["line", "only", "no"] = arguments.bag or ("no" if own_tokens else "line")
    recipe = _recipe(arguments, "from-teacher" if own_tokens else "asterisk")
    shape = {
        name: value
        for option, name in SHAPE.items()
        if (value := getattr(arguments, option)) is not None
    }
    kept = arguments.layers if isinstance(arguments.layers, tuple) else None
    if arguments.from_teacher and isinstance(arguments.layers, int):
        kept = (arguments.layers,)
    elif isinstance(arguments.layers, int):
        shape["num_layers"] = arguments.layers
    _check_out(arguments, bag)
    try:
        import torch

        from asterisk.training.distributed import processes
        from asterisk.training.pipeline import Job, train
        from asterisk.training.start import Pruning
    except ImportError as missing:
        raise MissingExtra(missing.name or "torch", "train") from None

    torch.set_num_threads(arguments.threads)
    job: Job = Job(
        corpus=arguments.corpus,
        targets=arguments.targets,
        out=arguments.out,
        run=arguments.run,
        texts=arguments.texts,
        teacher=arguments.teacher,
        follow=arguments.follow,
        start=arguments.start,
        from_teacher=arguments.from_teacher,
        pruning=Pruning(kept, arguments.width),
        bag=bag,
        evaluation=arguments.evaluation,
        licence=arguments.licence,
    )
    with processes(arguments.device) as these:
        train(job, recipe, shape, these, _Display() if these.first else _silent)
        if these.first:
            print(f"wrote {arguments.out}")


def _recipe(arguments: argparse.Namespace, preset: str) -> TrainingRecipe:
    names = [field.name for field in fields(TrainingRecipe)]
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if "passes" in given:  # what is given last decides, also over a preset's epochs
        given.setdefault("epochs", 0)
    return replace(PRESETS[arguments.preset or preset], **given)


def _check_out(arguments: argparse.Namespace, bag: str) -> None:
    """Refuse what could not be written before hours are spent."""
    from asterisk.common.files import check_replaceable
    from asterisk.model.checkpoint import is_checkpoint
    from asterisk.training.static import is_bag

    ours = is_bag if bag == "only" else is_checkpoint
    check_replaceable(arguments.out, ours)
    if arguments.run.resolve() == arguments.out.resolve():
        raise UsageError(f"--out {arguments.out} is the working folder: choose another --run")
    if bag != "only":
        from asterisk.common.plugins import require

        require("matplotlib", "train")


def _layers(text: str) -> int | tuple[int, ...]:
    """Read a count, or the layers that are kept: two or more between commas."""
    if "," in text:
        return tuple(_whole(part) for part in text.split(","))
    return 0 if text == "0" else positive(text)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


_READERS: dict[type, Callable[[str], object]] = {int: _whole, float: _number, str: str}


def _silent(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
    pass


class _Display:
    """A line of progress a few times a minute, and one at every look at held-out texts."""

    def __init__(self) -> None:
        self.stage, self.shown = "", 0.0
        self.begun, self.first = 0.0, 0

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Tell how far ``stage`` is, how fast, and how long it will take."""
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.begun, self.first = stage, now, done
        elif now - self.shown < TOLD_EVERY and "held_out_cosine" not in figures:
            return
        self.shown = now
        told = "".join(f"  {name.replace('_', ' ')} {x:.4f}" for name, x in figures.items())
        tell(f"{stage}: {done:,} of {total:,}{self._pace(done, total, now)}{told}")

    def _pace(self, done: int, total: int, now: float) -> str:
        if done <= self.first or now <= self.begun:
            return ""
        rate = (done - self.first) / (now - self.begun)
        left = int(max(total - done, 0) / rate)
        pace = f"  {rate:,.0f}/s" if rate >= 1 else ""
        return f"{pace}  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


if __name__ == "__main__":
    sys.exit(main())
