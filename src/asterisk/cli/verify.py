"""`asterisk-verify`: whether an artifact gives the right vectors on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.cli.common import Parser, run


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    what = "Check an artifact's files and compare its vectors with the FP32 ones it carries."
    it = Parser(prog="asterisk-verify", description=f"{what} Needs no PyTorch.")
    it.add_argument("artifact", nargs="+", type=Path, help="artifact folder")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _verify, argv)


def _verify(arguments: argparse.Namespace) -> None:
    from asterisk.runtimes.load import verify

    for folder in arguments.artifact:
        verdict = verify(folder)
        cosines = f"mean {verdict.cosine_mean:.5f} min {verdict.cosine_min:.5f}"
        print(f"{folder}: files intact, {verdict.texts} golden texts, cosine to FP32 {cosines}")


if __name__ == "__main__":
    sys.exit(main())
