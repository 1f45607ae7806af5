"""`asterisk-bench`: one table over every runtime."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asterisk import plugins
from asterisk.bench import plan
from asterisk.bench.peers import NAMES as PEERS
from asterisk.bench.render import markdown
from asterisk.bench.results import Report
from asterisk.bench.run import Request, bench
from asterisk.cli.common import Parser, positive, run
from asterisk.errors import EngineError, OutputError, UnknownName, UsageError
from asterisk.files import replacing_file
from asterisk.places import ARTIFACTS, shipped_checkpoint
from asterisk.progress import tell

RESULTS = Path("bench-results")
TIMEOUT = 180
ORDER = ("torch", "onnx", "tflite", "gguf")  # of the table; formats of others follow


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-bench",
        description="Measure speed, memory, size and fidelity of every runtime in one table. "
        "Artifacts that are missing or of another checkpoint are exported first.",
    )
    it.add_argument(
        "--runtime",
        default="all",
        help="all (default), peers, or names with commas between: torch, a format, "
        f"{', '.join(PEERS)}",
    )
    it.add_argument("--no-peers", action="store_true", help="leave the systems of others out")
    it.add_argument("--checkpoint", type=Path, help="checkpoint folder; default: the shipped one")
    it.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, help="their folder (default: %(default)s)"
    )
    it.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of results (default: %(default)s)"
    )
    it.add_argument(
        "--threads", type=_counts, default=(1, 2), help="texts at once, such as 1,2 (default)"
    )
    it.add_argument("--processes", type=positive, help="processes a cell (default: 3; thorough: 5)")
    it.add_argument("--thorough", action="store_true", help="measure each cell four times as long")
    it.add_argument("--seed", type=int, help="order of the cells (default: another every time)")
    it.add_argument(
        "--timeout", type=positive, default=TIMEOUT, help="seconds a process (default: %(default)s)"
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _bench, argv)


def _bench(arguments: argparse.Namespace) -> int:
    runtimes, peers = choose(arguments.runtime, without_peers=arguments.no_peers)
    effort = plan.THOROUGH if arguments.thorough else plan.QUICK
    seed = arguments.seed
    request = Request(
        runtimes=runtimes,
        peers=peers,
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        artifacts=arguments.artifacts,
        work=arguments.out / "peers",
        threads=arguments.threads,
        effort=replace(effort, processes=arguments.processes or effort.processes),
        seed=random.SystemRandom().randrange(1 << 32) if seed is None else seed,
        timeout=arguments.timeout,
    )
    _check(arguments.out)
    report = bench(request, tell)
    print(markdown(report), end="", flush=True)
    _write(report, arguments.out)
    for line in report.failures:
        tell(f"failed: {line}")
    return EngineError.status if report.failures else 0


def choose(names: str, *, without_peers: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the runtimes and the peers that ``names`` means; UnknownName for any other."""
    formats = plugins.names("asterisk.exporters")
    known = tuple(
        dict.fromkeys((*(name for name in ORDER if name in ("torch", *formats)), *formats))
    )
    groups = {"all": (*known, *PEERS), "peers": PEERS}
    chosen = [name for part in names.split(",") for name in groups.get(part, (part,))]
    for name in chosen:
        if name not in (*known, *PEERS):
            there = ", ".join(("all", "peers", *known, *PEERS))
            raise UnknownName(f"no runtime named {name!r}; there are: {there}")
    runtimes = tuple(name for name in known if name in chosen)
    peers = () if without_peers else tuple(name for name in PEERS if name in chosen)
    if not runtimes and not peers:
        raise UsageError("nothing is left to measure")
    return runtimes, peers


def _check(out: Path) -> None:
    """Refuse a folder that could not be made, before two minutes are spent."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"cannot write {out}: {nearest} is not a folder")


def _write(report: Report, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("latest.json", report.to_json()), ("latest.md", markdown(report))):
        with replacing_file(out / name) as staging:
            staging.write_text(text, "utf-8")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


if __name__ == "__main__":
    sys.exit(main())
