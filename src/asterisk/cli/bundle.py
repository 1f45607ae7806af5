"""`asterisk-bundle`: an artifact in, one archive out that installs itself on a small board."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.cli.common import Parser, run
from asterisk.common.terminal import report
from asterisk.deploy.boards import BOARDS, PYTHONS


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-bundle",
        description="Pack an artifact with all it needs on a 64-bit Raspberry Pi. There: "
        "tar xf FILE && python3 asterisk-bundle/install.py",
    )
    what = "artifact, or folder of several, or checkpoint: what suits the board best is taken"
    it.add_argument("artifact", type=Path, help=what)
    it.add_argument("--target", required=True, choices=tuple(BOARDS), help="the board")
    python = "of its system: 3.11 in Bookworm, 3.13 in Trixie (default: %(default)s)"
    it.add_argument("--python", default="3.11", choices=tuple(PYTHONS), help=python)
    it.add_argument("--format", help="a format's name; the board's best if left out")
    folder = "folder of bundles (default: %(default)s)"
    it.add_argument("--out", type=Path, default=Path("bundles"), help=folder)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _bundle, argv)


def _bundle(arguments: argparse.Namespace) -> None:
    from asterisk.deploy.bundle import choose_artifact, collect, write
    from asterisk.deploy.wheels import required_by

    target = BOARDS[arguments.target]
    with choose_artifact(arguments.artifact, target, arguments.format) as choice:
        if choice.note:
            report(f"asterisk-bundle: {choice.note}")
        bundle = collect(choice.artifact, target, arguments.python)
        it = bundle.manifest
        path = arguments.out / "{name}-{format}-{recipe}-{board}-py{python}.tar.xz".format(**it)
        size = write(bundle, path)
    engine = ", ".join(required_by(it["format"])).replace("==", " ")
    limit = "no limit" if it["max_memory"] is None else f"{it['max_memory'] >> 20} MiB at most"
    print(
        f"{path}  {size / 1e6:.1f} MB, installed {it['installed_bytes'] / 1e6:.1f} MB  "
        f"Python {it['python']}, {engine}  {it['format']} {it['recipe']} ({choice.why})  "
        f"threads {it['threads']}, memory: {limit}"
    )


if __name__ == "__main__":
    sys.exit(main())
