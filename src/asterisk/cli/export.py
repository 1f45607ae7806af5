"""`asterisk-export`: a checkpoint in, artifacts out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, run
from asterisk.errors import AsteriskError, FidelityError, InputError, UsageError
from asterisk.places import ARTIFACTS, shipped_checkpoint
from asterisk.progress import tell

if TYPE_CHECKING:
    from asterisk.exporters.exporter import Recipe

MOST_TEXTS = 10_000


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-export",
        description="Export a sentence encoder of BERT's family. Every export is compared with "
        "FP32 PyTorch in its own runtime; one that falls short leaves nothing.",
    )
    it.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint folder, or a model's name on the Hugging Face hub (organisation/model); "
        "the shipped checkpoint if left out",
    )
    it.add_argument("--revision", help="of a model on the hub: a branch, tag or commit")
    it.add_argument("--format", default="all", help="a format's name, or all (default)")
    it.add_argument(
        "--recipe",
        help="a recipe's name, or auto: the smallest that passes its gate; "
        "each format's default if left out",
    )
    it.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="your own texts, lines or JSON lines, for the gate and for calibration beside those "
        "that ship",
    )
    it.add_argument(
        "--compatible-with",
        action="append",
        default=[],
        metavar="MODEL",
        help="an artifact, a checkpoint or a fingerprint whose vectors may be compared with this "
        "model's, as a student's with its teacher's; may be given again",
    )
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
    recipe_name = arguments.recipe
    chosen = exporting.formats() if arguments.format == "all" else (arguments.format,)
    if arguments.format == "all" and recipe_name not in (None, exporting.AUTO):
        raise UsageError("--recipe needs one --format: each format has recipes of its own")
    if recipe_name != exporting.AUTO:
        for name in chosen:  # a wrong name is found before the first minute is spent
            exporting.choose(exporting.exporter(name), recipe_name)
    texts = _texts(arguments.texts) if arguments.texts else []
    from asterisk.model.hub import open_checkpoint
    from asterisk.spaces import read_spaces

    given = shipped_checkpoint() if arguments.checkpoint is None else arguments.checkpoint
    checkpoint = open_checkpoint(given, arguments.revision)
    spaces = dict.fromkeys(checkpoint.compatible_with)
    for model in arguments.compatible_with:
        found, size = read_spaces(model)
        if size not in (None, checkpoint.config.embedding_size):
            raise UsageError(
                f"{model} gives vectors of {size}, {checkpoint.name} "
                f"of {checkpoint.config.embedding_size}: they cannot be compared"
            )
        spaces |= dict.fromkeys(found)
    checkpoint = replace(checkpoint, compatible_with=tuple(spaces))
    refused: list[AsteriskError] = []
    with exporting.open_reference(checkpoint, texts) as reference:
        for name in chosen:
            start = f"{checkpoint.name}-{name}"

            def place(recipe: Recipe, start: str = start) -> Path:
                folder: Path = arguments.out / f"{start}-{recipe.name}"
                return folder

            try:
                artifact = exporting.export(
                    checkpoint, name, recipe_name, place, tell, reference=reference
                )
            except (UsageError, FidelityError) as failure:
                refused.append(failure)  # of one format; the others are written
                continue
            figures = artifact.manifest.fidelity
            print(
                f"{artifact.folder}  {artifact.size / 1e6:.1f} MB  "
                f"cosine mean {figures['cosine_mean']:.5f} min {figures['cosine_min']:.5f}  "
                f"overlap@10 {figures['overlap_at_10']:.3f}"
            )
    if refused:
        raise type(refused[0])("; ".join(map(str, refused)))


def _texts(path: Path) -> list[str]:
    """Return the lines of a file that are not blank."""
    from asterisk.streams.reading import kept, read

    texts = [one.text for one in kept(read([path], json_lines=None, field="text"), "skip")]
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise InputError(f"{path} has {len(texts):,} texts; 1 to {MOST_TEXTS:,} are expected")
    return texts


if __name__ == "__main__":
    sys.exit(main())
