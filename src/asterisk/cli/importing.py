"""`asterisk-import`: the original project's `model.pt` in, a checkpoint out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import UsageError

CHECKPOINTS = Path("checkpoints")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-import",
        description="Make a checkpoint of asterisk-embedding-model's model.pt: a state dict, alone "
        "or within a training checkpoint. Sizes are read from its tensors.",
    )
    it.add_argument("model", type=Path, help="file that torch.save wrote")
    where = it.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help="checkpoint folder (default: checkpoints/NAME)")
    where.add_argument("--name", help="default: the file's name without its ending")
    it.add_argument(
        "--heads",
        type=positive,
        default=2,
        help="attention heads, which no tensor shows (default: %(default)s, the original's)",
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _import, argv)


def _import(arguments: argparse.Namespace) -> None:
    from asterisk.artifact import is_plain_name
    from asterisk.model import checkpoint, original

    out = arguments.out or CHECKPOINTS / (arguments.name or arguments.model.stem)
    name = arguments.name if arguments.name is not None else out.resolve().name
    if not is_plain_name(name):
        raise UsageError(
            f"a checkpoint called {name!r} could not be exported: "
            "use letters, digits, '.', '_' and '-', 100 at most"
        )
    imported = original.read(arguments.model, name, arguments.heads)
    checkpoint.save(imported, out)
    config = imported.config
    weights = sum(value.size for value in imported.tensors.values())
    print(
        f"{out}  {weights / 1e6:.1f} M weights  {config.num_layers} layers, "
        f"{config.num_heads} heads, hidden {config.hidden_size}, "
        f"{config.embedding_size}-d vectors, {config.vocab_size:,} tokens"
    )


if __name__ == "__main__":
    sys.exit(main())
