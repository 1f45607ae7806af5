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
from asterisk.bench.plan import REFERENCE
from asterisk.bench.render import markdown
from asterisk.bench.results import Report
from asterisk.bench.run import Request, bench
from asterisk.cli.common import Parser, positive, run
from asterisk.errors import EngineError, InputError, OutputError, UnknownName, UsageError
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
    pareto = it.add_argument_group("instead of that")
    pareto.add_argument(
        "--pareto",
        type=Path,
        metavar="PAGE",
        help="measure every recipe of every format and write this Markdown page, its JSON and, "
        "with matplotlib, its plot",
    )
    pareto.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="folder of evaluation sets, for the page's quality; may be given several times",
    )
    pareto.add_argument("--split", choices=("dev", "test"), default="test", help="default: test")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _bench, argv)


def _bench(arguments: argparse.Namespace) -> int:
    page = arguments.pareto
    if arguments.data and page is None:
        raise UsageError("--data needs --pareto")
    without_peers = arguments.no_peers or page is not None
    runtimes, peers = choose(arguments.runtime, without_peers=without_peers)
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
    if page is not None:
        return _pareto(arguments, request)
    _check(arguments.out)
    report = bench(request, tell)
    print(markdown(report), end="", flush=True)
    _write(report, arguments.out)
    for line in report.failures:
        tell(f"failed: {line}")
    return EngineError.status if report.failures else 0


def _pareto(arguments: argparse.Namespace, request: Request) -> int:
    from asterisk.bench.pareto_page import page, plot
    from asterisk.bench.pareto_run import measure_recipes

    target: Path = arguments.pareto
    if target.suffix != ".md":
        raise UsageError(f"a page ends in .md: {target}")
    for folder in arguments.data:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of evaluation sets")
    _check(target.parent)
    formats = tuple(name for name in request.runtimes if name != REFERENCE)
    if not formats:
        raise UsageError("no format is left to measure")
    run = measure_recipes(replace(request, runtimes=formats), arguments.data, arguments.split, tell)
    picture = plot(run)
    text = page(run, target.with_suffix(".png").name if picture else None)
    target.parent.mkdir(parents=True, exist_ok=True)
    files = {".json": run.to_json().encode(), ".png": picture, ".md": text.encode()}
    for suffix, data in files.items():
        if data is not None:
            with replacing_file(target.with_suffix(suffix)) as staging:
                staging.write_bytes(data)
    print(text, end="", flush=True)
    return 0


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
