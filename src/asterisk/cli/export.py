"""`asterisk-export`: a checkpoint in, artifacts out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, run
from asterisk.common.errors import AsteriskError, FidelityError, InputError, UnknownName, UsageError
from asterisk.common.files import ARTIFACTS, shipped_checkpoint
from asterisk.common.terminal import report

if TYPE_CHECKING:
    from asterisk.exporters import Recipe
    from asterisk.model.checkpoint import Checkpoint

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
        "--layout",
        choices=("artifact", "hub"),
        default="artifact",
        help="artifacts for the runtimes of this package (default), or one folder, to be uploaded "
        "as it is, that other people's loaders open: PyTorch's files, ONNX, GGUF and TFLite",
    )
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
    from asterisk.exporters.export import export, find_exporter, formats, open_reference
    from asterisk.exporters.hub_folder import write_hub_folder
    from asterisk.model.hub import open_checkpoint

    if arguments.list:
        for name in formats():
            for recipe in find_exporter(name).recipes:
                print(f"{name:8} {recipe.name:10} {recipe.summary}")
        return
    chosen = _formats(arguments)  # a wrong name is found before the first minute is spent
    texts = _texts(arguments.texts) if arguments.texts else []
    given = shipped_checkpoint() if arguments.checkpoint is None else arguments.checkpoint
    checkpoint = open_checkpoint(given, arguments.revision)
    checkpoint = _in_spaces_of(checkpoint, arguments.compatible_with)
    out: Path = arguments.out
    refused: list[AsteriskError] = []

    def folder_of(format: str, recipe: Recipe) -> Path:
        return out / f"{checkpoint.name}-{format}-{recipe.name}"

    with open_reference(checkpoint, texts) as reference:
        if arguments.layout == "hub":
            folder = out / f"{checkpoint.name}-hub"
            written = write_hub_folder(checkpoint, chosen, folder, report, reference=reference)
            for name, figures in written.figures.items():
                _print(folder / name, (folder / name).stat().st_size, figures)
            refused += written.refused.values()
            chosen = ()
        for name in chosen:
            options = arguments.recipe, partial(folder_of, name), report
            try:
                artifact = export(checkpoint, name, *options, reference=reference)
            except (UsageError, FidelityError) as failure:
                refused.append(failure)  # of one format; the others are written
            else:
                _print(artifact.folder, artifact.size, artifact.manifest.fidelity)
    if refused:
        raise type(refused[0])("; ".join(map(str, refused)))


def _formats(arguments: argparse.Namespace) -> Sequence[str]:
    """Return the formats to write; UsageError for names that do not go together."""
    from asterisk.exporters.export import AUTO, choose, find_exporter, formats
    from asterisk.exporters.hub_folder import FORMATS

    hub, name, recipe = arguments.layout == "hub", arguments.format, arguments.recipe
    if hub and recipe is not None:
        raise UsageError("--recipe does not go with --layout hub, whose recipes are fixed")
    if hub and name not in ("all", *FORMATS):
        names = ", ".join(FORMATS)
        raise UnknownName(f"the hub layout has no format {name!r}; there are: {names}")
    if name == "all" and recipe not in (None, AUTO):
        raise UsageError("--recipe needs one --format: each format has recipes of its own")
    chosen = (FORMATS if hub else formats()) if name == "all" else (name,)
    if not hub and recipe != AUTO:
        for format in chosen:
            choose(find_exporter(format), recipe)
    return chosen


def _in_spaces_of(checkpoint: Checkpoint, models: Sequence[str]) -> Checkpoint:
    """Return ``checkpoint`` as one whose vectors may be compared with those of ``models``."""
    from asterisk.artifact import read_spaces

    spaces = dict.fromkeys(checkpoint.compatible_with)
    for model in models:
        found, size = read_spaces(model)
        if size not in (None, checkpoint.config.embedding_size):
            raise UsageError(
                f"{model} gives vectors of {size}, {checkpoint.name} "
                f"of {checkpoint.config.embedding_size}: they cannot be compared"
            )
        spaces |= dict.fromkeys(found)
    return replace(checkpoint, compatible_with=tuple(spaces))


def _print(path: Path, size: int, figures: Mapping[str, float]) -> None:
    """Print a line about what was written; ``size`` in bytes."""
    print(
        f"{path}  {size / 1e6:.1f} MB  "
        f"cosine mean {figures['cosine_mean']:.5f} min {figures['cosine_min']:.5f}  "
        f"overlap@10 {figures['overlap_at_10']:.3f}"
    )


def _texts(path: Path) -> list[str]:
    from asterisk.common.text_files import filter_empty, read_records

    records = read_records([path], json_lines=None, field="text")
    texts = [record.text for record in filter_empty(records, "skip")]
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise InputError(f"{path} has {len(texts):,} texts; 1 to {MOST_TEXTS:,} are expected")
    return texts


if __name__ == "__main__":
    sys.exit(main())
