"""Instructions by processor core of given artifacts: ``python -m benchmarks.by_core FOLDER…``.

One line an artifact and core, as a table in Markdown on standard output: million instructions an
``encode`` of one text, counted under emulation as `asterisk.bench.worker` does it. A shorter way
than a run of the benchmark, for recipes that are nobody's default, too. No time is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from asterisk.artifact import Artifact, open_artifact
from asterisk.bench.plan import BUCKETS
from asterisk.bench.prepare import ENGINES, OPENER, choose
from asterisk.bench.targets import ARM, Emulated, Unavailable
from asterisk.bench.targets.emulated import EmulatedSession, find_counting
from asterisk.common.errors import AsteriskError, EngineError
from asterisk.common.terminal import report
from asterisk.tokenizer import gpt2

CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
SECONDS = 60  # for each artifact and core, before what emulation costs


def counts(artifact: Artifact, core: str, texts: dict[str, list[str]]) -> dict[str, float]:
    """Return million instructions an encode by number of tokens; EngineError where they cannot be.

    ``texts`` are some for each number of tokens; the first one of each is counted.
    """
    with tempfile.TemporaryDirectory(prefix="asterisk-counts-") as name:
        folder = Path(name)
        try:
            session = EmulatedSession(Emulated(core), folder)
        except Unavailable as reason:
            raise EngineError(str(reason)) from None
        listed = folder / "texts.json"
        listed.write_text(json.dumps([some[0] for some in texts.values()]), "utf-8")
        modules = ("asterisk.runtimes.load", *ENGINES.get(artifact.manifest.format, ()))
        spec = {
            **{"kind": "vectors", "opener": OPENER, "path": str(artifact.folder)},
            **{"modules": modules, "threads": 1, "first": next(iter(texts.values()))[0]},
            **{"texts": str(listed), "count": None, "vectors": str(folder / "out.npy")},
            "counted": texts,
        }
        found: dict[str, float] = session.ask("asterisk.bench.worker", spec, SECONDS)[
            "instructions"
        ]
        return found


def table(artifacts: Sequence[Artifact], cores: Sequence[str]) -> Iterator[str]:
    """Give the table's lines as they become known."""
    chosen = choose(gpt2()).buckets
    texts = {str(tokens): some[:1] for tokens, some in chosen.items()}
    yield f"| format | recipe | core | {' | '.join(f'{tokens} tokens' for tokens in BUCKETS)} |"
    yield "|---|---|---|--:|--:|--:|"
    for artifact in artifacts:
        for core in cores:
            report(f"{artifact.folder.name} on {core}")
            found = counts(artifact, core, texts)
            figures = " | ".join(f"{found[str(tokens)]:.2f}" for tokens in BUCKETS)
            manifest = artifact.manifest
            yield f"| {manifest.format} | {manifest.recipe} | {core} | {figures} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return a status."""
    parser = argparse.ArgumentParser(prog="by-core", description=__doc__.partition("\n")[0])
    parser.add_argument("artifacts", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--core", action="append", choices=ARM, help=f"default: {CORES}")
    arguments = parser.parse_args(argv)
    try:
        if find_counting() is None:
            raise EngineError(
                "instructions need qemu with plugins: python -m benchmarks.emulation --counting"
            )
        artifacts = [open_artifact(folder) for folder in arguments.artifacts]
        for line in table(artifacts, arguments.core or CORES):
            print(line, flush=True)
    except AsteriskError as failure:
        print(f"by-core: {failure}", file=sys.stderr)
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
