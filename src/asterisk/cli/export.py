"""`asterisk-export`: a checkpoint in, artifacts out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.cli.common import Parser, run
from asterisk.errors import UsageError
from asterisk.places import ARTIFACTS, shipped_checkpoint
from asterisk.progress import tell


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-export",
        description="Export a checkpoint. Every export is compared with FP32 PyTorch in its own "
        "runtime; one that falls short leaves nothing.",
    )
    it.add_argument(
        "checkpoint", nargs="?", type=Path, help="checkpoint folder; the shipped one if left out"
    )
    it.add_argument("--format", default="all", help="a format's name, or all (default)")
    it.add_argument("--recipe", help="a recipe's name; each format's default if left out")
    it.add_argument(
        "--out", type=Path, default=ARTIFACTS, help="folder of artifacts (default: %(default)s)"
    )
    it.add_argument("--list", action="store_true", help="list formats and recipes, then stop")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    from asterisk.exporters import export as exporting

    if arguments.list:
        for name in exporting.formats():
            for recipe in exporting.exporter(name).recipes:
                print(f"{name:8} {recipe.name:10} {recipe.summary}")
        return
    chosen = exporting.formats() if arguments.format == "all" else (arguments.format,)
    if arguments.format == "all" and arguments.recipe is not None:
        raise UsageError("--recipe needs one --format: each format has recipes of its own")
    for name in chosen:  # a wrong name is found before the first minute is spent
        exporting.choose(exporting.exporter(name), arguments.recipe)
    from asterisk.model.checkpoint import load

    checkpoint = load(arguments.checkpoint or shipped_checkpoint())
    for name in chosen:
        recipe = exporting.choose(exporting.exporter(name), arguments.recipe)
        out = arguments.out / f"{checkpoint.name}-{name}-{recipe.name}"
        artifact = exporting.export(checkpoint, name, recipe.name, out, tell)
        figures = artifact.manifest.fidelity
        print(
            f"{out}  {artifact.size / 1e6:.1f} MB  "
            f"cosine mean {figures['cosine_mean']:.5f} min {figures['cosine_min']:.5f}  "
            f"overlap@10 {figures['overlap_at_10']:.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
