"""`asterisk-bench`: one table over every runtime."""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asterisk.bench import comparison, peers, plan
from asterisk.bench.comparison import Limit, parse_limits
from asterisk.bench.report import markdown, write
from asterisk.bench.results import Report, check_renderable, read
from asterisk.bench.runner import Request, bench
from asterisk.bench.statistics import MIN_PROCESSES
from asterisk.bench.targets import parse_all
from asterisk.cli.common import Parser, positive, run
from asterisk.common import plugins, terminal
from asterisk.common.errors import (
    EngineError,
    InputError,
    MissingExtra,
    OutputError,
    RegressionError,
    UnknownName,
    UsageError,
)
from asterisk.common.files import ARTIFACTS, shipped_checkpoint
from asterisk.runtimes import memory_budget as budget

RESULTS = Path("bench-results")
PEER_PYTHON = Path(".venv-peers/bin/python")
TIMEOUT = 180
INTERRUPTED = 130
ORDER = ("torch", "onnx", "tflite", "gguf")  # of the table; formats of others follow
MAX_NAMED = 3  # of what got worse, in the one line at the end
STUDIES = {"--pareto": "benchmarks.pareto", "--models": "benchmarks.models"}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    it = Parser(
        prog="asterisk-bench",
        description="Measure speed, memory, size and fidelity of every runtime in one table. "
        "Artifacts that are missing or of another checkpoint are exported first.",
    )
    it.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint folder, or a model's name: all-MiniLM-L6-v2, or on the Hugging Face hub "
        "(organisation/model); the shipped checkpoint if left out",
    )
    it.add_argument(
        "--runtime",
        default="all",
        help=f"all (default; of the peers only {' and '.join(peers.DEFAULT)}), peers (every one), "
        f"or names with commas between: torch, a format, {', '.join(peers.names())}",
    )
    it.add_argument("--no-peers", action="store_true", help="leave the systems of others out")
    it.add_argument(
        "--peer-python",
        type=Path,
        metavar="PATH",
        help=f"interpreter of the environment with the extra `peers` (default: {PEER_PYTHON} where "
        "that exists, else this one)",
    )
    it.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, help="their folder (default: %(default)s)"
    )
    it.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of results (default: %(default)s)"
    )
    it.add_argument(
        "--threads", type=_threads, default=(1, 2), help="texts at once, such as 1,2 (default)"
    )
    it.add_argument("--processes", type=positive, help="processes a cell (default: 3; thorough: 5)")
    budget.add_option(it)
    it.add_argument("--thorough", action="store_true", help="measure each cell four times as long")
    it.add_argument("--seed", type=int, help="order of the cells (default: another every time)")
    it.add_argument(
        "--timeout", type=positive, default=TIMEOUT, help="seconds a process (default: %(default)s)"
    )
    it.add_argument(
        "--buckets",
        type=_buckets,
        default=plan.BUCKETS,
        metavar="8,20,128",
        help="tokens of the texts that are timed (default: 8,20,128; 20 is always among them)",
    )
    it.add_argument(
        "--target",
        action="append",
        metavar="TARGET",
        help="local (default), local:threads=1,cpus=0, ssh://user@host, emu:cortex-a72; may be "
        "given several times",
    )
    it.add_argument(
        "--keep", action="store_true", help="leave what was copied to another machine there"
    )
    it.add_argument(
        "--plan", type=Path, metavar="FILE", help="read all of this from TOML; options here win"
    )
    group = it.add_argument_group("comparing")
    group.add_argument(
        "--compare",
        type=Path,
        metavar="OLD.json",
        help="compare with this earlier run; without --with, measure now, 9 processes a cell "
        "unless --processes says otherwise",
    )
    group.add_argument(
        "--with",
        type=Path,
        metavar="NEW.json",
        dest="new",
        help="measure nothing, compare this one with it",
    )
    group.add_argument(
        "--fail-on",
        metavar="LIMITS",
        help="exit with status 9 if something is worse: p50:5%%,pss:3%%,cosine:0.995,overlap:0.95,"
        "size:1%%,instructions:1%%, or some of these (default: report it, never fail)",
    )
    group.add_argument("--force", action="store_true", help="compare unlike machines all the same")
    it.add_argument_group("instead of that").add_argument(
        "--render",
        type=Path,
        metavar="JSON",
        help="write tables, CSV, HTML and pictures of this past run into --out, measuring nothing",
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = list(sys.argv[1:] if argv is None else argv)
    for word in given:
        option = word.partition("=")[0]
        if option in STUDIES:
            command = f"python -m {STUDIES[option]} PAGE"
            line = f"{option} is a study of its own: in a clone, run {command}"
            print(f"asterisk-bench: {line}", file=sys.stderr)
            return UsageError.status
    return run(parser(), lambda arguments: _run(planned(arguments, given)), given)


def planned(arguments: argparse.Namespace, argv: Sequence[str]) -> argparse.Namespace:
    """Read ``argv`` again with the values of `--plan` as defaults, so that options given win."""
    if arguments.plan is None:
        return arguments
    it = parser()
    it.set_defaults(**plan.read_plan(arguments.plan))
    again = it.parse_intermixed_args(argv)
    again.target = arguments.target or again.target  # argparse would add to the plan's
    return again


def _run(arguments: argparse.Namespace) -> int:
    if arguments.render is not None:
        return _render(arguments)
    baseline = _baseline(arguments)
    if baseline and arguments.new:
        baseline.finish(read(arguments.new))
        return 0
    runtimes, others = choose(arguments.runtime, without_peers=arguments.no_peers)
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("PyTorch, which everything is compared with,", "bench")
    request = Request(
        runtimes=runtimes,
        peers=others,
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        artifacts=arguments.artifacts,
        work=arguments.out / "peers",
        threads=arguments.threads,
        effort=_effort(arguments),
        seed=random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed,
        timeout=arguments.timeout,
        targets=parse_all(arguments.target or ["local"]),
        buckets=arguments.buckets,
        keep=arguments.keep,
        max_memory=arguments.max_memory,
        peer_python=_peer_python(arguments.peer_python) if others else "",
    )
    _check_folder(arguments.out)
    if baseline and not baseline.force and any(it.kind == "local" for it in request.targets):
        comparison.check_here(baseline.old, baseline.limits)
    report = bench(request, terminal.report)
    if not baseline:
        print(markdown(report), end="", flush=True)
    try:
        write(report, arguments.out)
    except MissingExtra as missing:  # of page and pictures; the figures are written
        terminal.report(f"no page and no pictures: {missing}")
    for line in report.failures:
        terminal.report(f"failed: {line}")
    if report.settings["interrupted"]:
        return INTERRUPTED
    if baseline:
        baseline.finish(report)
    return EngineError.status if report.failures else 0


def _effort(arguments: argparse.Namespace) -> plan.Effort:
    effort = plan.THOROUGH if arguments.thorough else plan.QUICK
    default = effort.processes if arguments.compare is None else MIN_PROCESSES
    processes = arguments.processes or default
    # With enough processes a report can be compared with another, and then its memory should too.
    weighings = processes if processes >= MIN_PROCESSES else effort.weighings
    return replace(effort, processes=processes, weighings=weighings)


def _render(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        raise UsageError("--render measures and compares nothing: leave --compare out")
    report = read(arguments.render)
    check_renderable(report)
    _check_folder(arguments.out)
    print(markdown(report), end="", flush=True)
    write(report, arguments.out)
    return 0


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run, and what may not be worse than in it."""

    old: Report
    limits: Mapping[str, Limit]
    force: bool

    def finish(self, new: Report) -> None:
        """Print the table; RegressionError if something is worse than allowed."""
        found = comparison.compare(self.old, new, self.limits, force=self.force)
        print(comparison.table(found), end="", flush=True)
        failed = [line.name for line in found.failed]
        if failed:
            more = f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
            raise RegressionError(f"worse than allowed: {', '.join(failed[:MAX_NAMED])}{more}")


def _baseline(arguments: argparse.Namespace) -> Baseline | None:
    if arguments.compare is None:
        needing = {"--with": arguments.new, "--fail-on": arguments.fail_on}
        for option, value in needing.items():
            if value is not None:
                raise UsageError(f"{option} needs --compare")
        if arguments.force:
            raise UsageError("--force needs --compare")
        return None
    limits = {} if arguments.fail_on is None else parse_limits(arguments.fail_on)
    return Baseline(read(arguments.compare), limits, arguments.force)


def _peer_python(given: Path | None) -> str:
    """Return the interpreter of the peers, empty for this one."""
    if given is None and not PEER_PYTHON.is_file():
        return ""
    path = (given or PEER_PYTHON).absolute()  # not resolved: an environment's is a link
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise InputError(f"--peer-python: {given} is no Python interpreter")
    return str(path)


def choose(names: str, *, without_peers: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the runtimes and the peers that ``names`` means; UnknownName for any other."""
    formats = plugins.names("asterisk.exporters")
    ours = tuple(dict.fromkeys((*(it for it in ORDER if it in ("torch", *formats)), *formats)))
    others = peers.names()
    groups = {"all": (*ours, *peers.DEFAULT), "peers": others}
    chosen = [name for part in names.split(",") for name in groups.get(part, (part,))]
    for name in chosen:
        if name not in (*ours, *others):
            every = ", ".join((*groups, *ours, *others))
            raise UnknownName(f"no runtime named {name!r}; there are: {every}")
    runtimes = tuple(name for name in ours if name in chosen)
    systems = () if without_peers else tuple(name for name in others if name in chosen)
    if not runtimes and not systems:
        raise UsageError("nothing is left to measure")
    return runtimes, systems


def _check_folder(out: Path) -> None:
    """Refuse a folder that could not be made, before two minutes are spent."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"cannot write {out}: {nearest} is not a folder")


def _threads(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


def _buckets(text: str) -> tuple[int, ...]:
    parts, most = text.split(","), plan.LONG
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= most for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no lengths of 1 to {most} tokens")
    return tuple(sorted({int(part) for part in parts}))


if __name__ == "__main__":
    sys.exit(main())
