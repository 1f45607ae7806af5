"""`asterisk-train`: distil a checkpoint from a teacher's targets."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import MissingExtra, UsageError
from asterisk.common.terminal import report
from asterisk.training.recipe import PRESETS, TrainingRecipe

SHAPE = {
    "heads": "num_heads",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "positions": "max_positions",
}
LINE_EVERY = 10.0  # seconds


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-train",
        description="Distil a checkpoint from a teacher's targets. Run it again to go on where it "
        "stopped; under torchrun, all processes make each step together.",
    )
    add = it.add_argument
    add("corpus", type=Path, help="folder that asterisk-data wrote")
    add("targets", type=Path, help="folder that asterisk-teacher wrote")
    add("--out", type=Path, required=True, help="checkpoint folder to write")
    working = "working folder (default: runs/ and --out's name)"
    # torchrun takes --run for an abbreviation of its own
    add("--run", "--working-folder", type=Path, help=working)
    add("--texts", type=positive, help="only the first texts, in whole shards of 8192")
    add("--follow", action="store_true", help="wait for a teacher that is at work")
    start = "begin with its weights instead of the teacher's reading of each token"
    add("--from", dest="start", type=Path, metavar="CHECKPOINT", help=start)
    start = "begin as the teacher itself, or those of its --layers; targets in its tokens"
    add("--from-teacher", action="store_true", help=start)
    add("--teacher", help="the teacher's name, where the targets do not say")
    add("--threads", type=positive, default=1, help="a process (default: 1)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add(
        "--bag",
        choices=("line", "only", "no"),
        help="the best static token table: trained too, for its line in the curve (default "
        "unless targets are in the teacher's tokens); "
        "nothing else, --out then being a sentence-transformers folder; or not at all",
    )
    add("--evaluation", type=Path, help="asterisk-eval's JSON, for the model card")
    licence = "put beside the weights (default: the LICENSE of what it begins with)"
    add("--licence", type=Path, metavar="FILE", help=licence)
    add = it.add_argument_group("model").add_argument
    layers = "how many (default: 2); or which of the layers it begins with, counted from 0"
    add("--layers", type=_layers, metavar="N|I,J", help=layers)
    width = "narrow what it begins with to so many of the teacher's axes"
    add("--width", type=positive, help=width)
    add("--heads", type=positive, help="default: 2")
    hidden = "default: the targets' size; else with a projection to it"
    add("--hidden", type=positive, help=hidden)
    add("--intermediate", type=positive, help="default: four times --hidden")
    add("--positions", type=positive, help="default: 512")
    add = it.add_argument_group("recipe, by a preset and what differs from it").add_argument
    add("--preset", choices=tuple(PRESETS), help="default: asterisk, or from-teacher")
    readers: dict[type, Callable[[str], object]] = {int: _whole, float: _number, str: str}
    for field in fields(TrainingRecipe):
        option, default = f"--{field.name.replace('_', '-')}", field.default
        if isinstance(default, bool):
            add(option, action=argparse.BooleanOptionalAction, help=f"asterisk: {default}")
        else:
            add(option, type=readers[type(default)], help=f"asterisk: {default}")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _train, argv)


def _train(arguments: argparse.Namespace) -> None:
    from asterisk.common.files import check_replaceable
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import is_checkpoint
    from asterisk.training.bag import is_bag
    from asterisk.training.teachers.targets import read_facts

    if arguments.from_teacher and arguments.start is not None:
        raise UsageError("--from-teacher and --from: a student begins once")
    arguments.run = arguments.run or Path("runs") / arguments.out.name
    own_tokens = read_facts(arguments.targets).get("tokenizer") == "teacher"
    arguments.bag = arguments.bag or ("no" if own_tokens else "line")
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    choices = {it.name: given[it.name] for it in fields(TrainingRecipe) if it.name in given}
    if "passes" in choices:  # what is given last decides, also over a preset's epochs
        choices.setdefault("epochs", 0)
    preset = arguments.preset or ("from-teacher" if own_tokens else "asterisk")
    recipe = replace(PRESETS[preset], **choices)
    shape = {name: given[option] for option, name in SHAPE.items() if option in given}
    layers = arguments.layers
    if isinstance(layers, int) and arguments.from_teacher:
        layers = (layers,)
    elif isinstance(layers, int):
        shape["num_layers"], layers = layers, None
    # What could not be written is refused before hours are spent.
    check_replaceable(arguments.out, is_bag if arguments.bag == "only" else is_checkpoint)
    if arguments.run.resolve() == arguments.out.resolve():
        raise UsageError(f"--out {arguments.out} is the working folder: choose another --run")
    if arguments.bag != "only":
        require("matplotlib", "train")
    try:
        import torch

        from asterisk.training.distributed import processes
        from asterisk.training.pipeline import Job, train
        from asterisk.training.student import Pruning
    except ImportError as missing:
        raise MissingExtra(missing.name or "torch", "train") from None
    torch.set_num_threads(arguments.threads)
    options = {it.name: given[it.name] for it in fields(Job) if it.name in given}
    job = Job(**options, pruning=Pruning(layers, arguments.width))
    with processes(arguments.device) as these:
        train(job, recipe, shape, these, _Display() if these.first else lambda *_: None)
        if these.first:
            print(f"wrote {arguments.out}")


def _layers(text: str) -> int | tuple[int, ...]:
    """Read a count, or two or more layers between commas."""
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


class _Display:
    """A line of progress a few times a minute, and one at every evaluation."""

    stage, shown, begun, first = "", 0.0, 0.0, 0

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Show how far ``stage`` is, how fast, and how long it will take."""
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.begun, self.first = stage, now, done
        elif now - self.shown < LINE_EVERY and "held_out_cosine" not in figures:
            return
        self.shown, pace = now, ""
        if done > self.first and now > self.begun:
            rate = (done - self.first) / (now - self.begun)
            left = int(max(total - done, 0) / rate)
            speed = f"  {rate:,.0f}/s" if rate >= 1 else ""
            pace = f"{speed}  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        named = "".join(f"  {name.replace('_', ' ')} {x:.4f}" for name, x in figures.items())
        report(f"{stage}: {done:,} of {total:,}{pace}{named}")


if __name__ == "__main__":
    sys.exit(main())
