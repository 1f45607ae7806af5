"""`asterisk-demo`: what this is for, in one command, on the texts that ship."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.cli.common import Parser, positive, run
from asterisk.common import texts
from asterisk.common.default_paths import ARTIFACTS
from asterisk.common.progress import tell

if TYPE_CHECKING:
    from asterisk.apps.search import Index
    from asterisk.runtimes.runtime import Runtime


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-demo",
        description="Index the texts that ship, search them, find near-duplicates, and tell times "
        "and memory. Nothing is left behind and no network is used.",
    )
    it.add_argument(
        "artifact",
        nargs="?",
        type=Path,
        help="artifact folder (default: the LiteRT one, exported first if there is none)",
    )
    it.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, help="where that one is (%(default)s)"
    )
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once (1)")
    it.add_argument("--interactive", action="store_true", help="then ask for queries")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _demo, argv)


def _demo(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.apps.search import Index
    from asterisk.bench.prepare import default_artifact as usual

    artifact = arguments.artifact or usual(arguments.artifacts, tell)
    with (
        asterisk.load(artifact, threads=arguments.threads) as runtime,
        tempfile.TemporaryDirectory(prefix="asterisk-demo-") as folder,
        Index.create(Path(folder) / "demo.db", artifact, runtime=runtime) as index,
    ):
        _show(index, runtime, artifact)
        if arguments.interactive:
            _prompt(index, runtime)


def _show(index: Index, runtime: Runtime, artifact: Path) -> None:
    from asterisk.cli import demo_show as show

    every = texts.load()
    print(f"{artifact.name} ({runtime.format}), {len(every):,} texts that ship\n")
    _print(show.indexing(index, runtime, every))
    _print(show.asking(index, runtime, every))
    shown = show.timing(index, runtime, every)
    _print(show.near_duplicates(runtime, every))
    _print(show.sorting(runtime, every))
    _print(show.summary(shown, index.path))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
    print()


def _prompt(index: Index, runtime: Runtime) -> None:
    from asterisk.cli.search import prompt, shown

    def answer(query: str) -> None:
        hits = index.search(query, 5, runtime)
        for place, hit in enumerate(hits, 1):
            print(shown(place, hit))
        if not hits:
            tell("nothing found")
        sys.stdout.flush()

    prompt(answer)


if __name__ == "__main__":
    sys.exit(main())
