"""`python -m benchmarks.search`: the benchmark of search."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from asterisk.bench.prepare import default_artifact
from asterisk.bench.process import CellError
from asterisk.cli.common import Parser, positive, run
from asterisk.common.errors import EngineError
from asterisk.common.files import ARTIFACTS, replacing_file
from asterisk.common.terminal import report as tell
from benchmarks.search.corpus import PASSAGES, SUMMARIES, Corpus, corpus, there
from benchmarks.search.report import markdown
from benchmarks.search.run import Plan, measure

STEM = "search"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="python -m benchmarks.search",
        description="Measure search end to end: queries by mode and storage, indexing, memory, "
        "file size, time to the first hit; beside them a matrix in memory.",
    )
    it.add_argument("--artifact", type=Path, help="default: the LiteRT one, exported if need be")
    it.add_argument("--data", type=Path, default=Path("data"), help="folder of eval/ and train/")
    it.add_argument(
        "--summaries", type=Path, nargs="+", help="files of short texts (default: AG News in DATA)"
    )
    it.add_argument(
        "--passages", type=Path, nargs="+", help="files of passages (default: Wikipedia in DATA)"
    )
    it.add_argument("--small", type=positive, default=5_000, help="summaries (5000)")
    it.add_argument("--large", type=positive, default=100_000, help="passages (100000)")
    it.add_argument("--queries", type=positive, default=200, help="queries a process (200)")
    it.add_argument("--processes", type=positive, default=3, help="processes a row (3)")
    it.add_argument("--timed", type=positive, default=3_000, help="summaries to time indexing on")
    it.add_argument("--seed", type=int, help="order of the rows (default: another every time)")
    it.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of results")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _bench, argv)


def _bench(arguments: argparse.Namespace) -> int:
    arguments.out.mkdir(parents=True, exist_ok=True)  # before minutes are spent
    plan = Plan(
        artifact=arguments.artifact or default_artifact(ARTIFACTS, tell),
        corpora=_corpora(arguments),
        processes=arguments.processes,
        summaries=arguments.timed,
        seed=random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed,
    )
    try:
        report = measure(plan, tell)
    except CellError as failure:
        raise EngineError(str(failure)) from failure
    text = markdown(report)
    print(text, end="", flush=True)
    for suffix, written in ((".json", json.dumps(report, indent=1) + "\n"), (".md", text)):
        with replacing_file(arguments.out / f"{STEM}{suffix}") as staging:
            staging.write_text(written, "utf-8")
    return EngineError.status if report["failed"] else 0


def _corpora(arguments: argparse.Namespace) -> dict[str, Corpus]:
    chosen = (
        ("summaries", arguments.summaries, SUMMARIES, arguments.small),
        ("passages", arguments.passages, PASSAGES, arguments.large),
    )
    return {
        name: corpus(files or there(arguments.data, defaults), size, arguments.queries)
        for name, files, defaults, size in chosen
    }


if __name__ == "__main__":
    sys.exit(main())
