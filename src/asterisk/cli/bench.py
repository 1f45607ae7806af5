"""`asterisk-bench`: one table over every runtime."""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asterisk.bench import comparison, peers, plan
from asterisk.bench.comparison import Limit, parse_limits
from asterisk.bench.report import markdown, write
from asterisk.bench.results import Report, check_renderable, read
from asterisk.bench.runner import Request, bench
from asterisk.bench.statistics import MIN_PROCESSES
from asterisk.bench.targets import parse_all
from asterisk.cli.common import Parser, positive, run
from asterisk.common import errors, plugins, terminal
from asterisk.common.files import ARTIFACTS, shipped_checkpoint
from asterisk.runtimes import memory_budget as budget

PEER_PYTHON = Path(".venv-peers/bin/python")
ORDER = ("torch", "onnx", "tflite", "gguf")  # of the table; formats of others follow
MAX_NAMED = 3  # of what got worse, in the one line at the end
STUDIES = {"--pareto": "benchmarks.pareto", "--models": "benchmarks.models"}


HELP = {
    "checkpoint": "checkpoint folder, or a model's name: all-MiniLM-L6-v2, or on the Hugging Face "
    "hub (organisation/model); the shipped checkpoint if left out",
    "--runtime": f"all (default; of the peers only {' and '.join(peers.DEFAULT)}), peers (every "
    f"one), or names with commas between: torch, a format, {', '.join(peers.names())}",
    "--no-peers": "leave the systems of others out",
    "--peer-python": "interpreter of the environment with the extra `peers` (default: "
    f"{PEER_PYTHON} where that exists, else this one)",
    "--artifacts": "their folder (default: %(default)s)",
    "--out": "folder of results (default: %(default)s)",
    "--threads": "texts at once, such as 1,2 (default)",
    "--processes": "processes a cell (default: 3; thorough: 5)",
    "--thorough": "measure each cell four times as long",
    "--seed": "order of the cells (default: another every time)",
    "--timeout": "seconds a process (default: %(default)s)",
    "--buckets": "tokens of the texts that are timed (default: 8,20,128; 20 is always among them)",
    "--target": "local (default), local:threads=1,cpus=0, ssh://user@host, emu:cortex-a72; may be "
    "given several times",
    "--keep": "leave what was copied to another machine there",
    "--plan": "read all of this from TOML; options here win",
    "--compare": "compare with this earlier run; without --with, measure now, 9 processes a cell "
    "unless --processes says otherwise",
    "--with": "measure nothing, compare this one with it",
    "--fail-on": "exit with status 9 if something is worse: p50:5%%,pss:3%%,cosine:0.995,"
    "overlap:0.95,size:1%%,instructions:1%%, or some of these (default: report it, never fail)",
    "--force": "compare unlike machines all the same",
    "--render": "write tables, CSV, HTML and pictures of this past run into --out, measuring "
    "nothing",
}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    group: argparse._ActionsContainer
    it = group = Parser(
        prog="asterisk-bench",
        description="Measure speed, memory, size and fidelity of every runtime in one table. "
        "Artifacts that are missing or of another checkpoint are exported first.",
    )

    def add(name: str, **options: Any) -> None:
        group.add_argument(name, help=HELP[name], **options)

    add("checkpoint", nargs="?")
    add("--runtime", default="all")
    add("--no-peers", action="store_true")
    add("--peer-python", type=Path, metavar="PATH")
    add("--artifacts", type=Path, default=ARTIFACTS)
    add("--out", type=Path, default=Path("bench-results"))
    add("--threads", type=_threads, default=(1, 2))
    add("--processes", type=positive)
    budget.add_option(it)
    add("--thorough", action="store_true")
    add("--seed", type=int)
    add("--timeout", type=positive, default=180)
    add("--buckets", type=_buckets, default=plan.BUCKETS, metavar="8,20,128")
    add("--target", action="append", metavar="TARGET")
    add("--keep", action="store_true")
    add("--plan", type=Path, metavar="FILE")
    group = it.add_argument_group("comparing")
    add("--compare", type=Path, metavar="OLD.json")
    add("--with", type=Path, metavar="NEW.json", dest="new")
    add("--fail-on", metavar="LIMITS")
    add("--force", action="store_true")
    group = it.add_argument_group("instead of that")
    add("--render", type=Path, metavar="JSON")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    given = list(sys.argv[1:] if argv is None else argv)
    for option in (word.partition("=")[0] for word in given):
        if option in STUDIES:
            line = f"in a clone, run python -m {STUDIES[option]} PAGE"
            print(f"asterisk-bench: {option} is a study of its own: {line}", file=sys.stderr)
            return errors.UsageError.status
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
    old, limits = _baseline(arguments)
    if old and arguments.new:
        _compare(old, read(arguments.new), limits, arguments.force)
        return 0
    effort = plan.THOROUGH if arguments.thorough else plan.QUICK
    processes = arguments.processes or (MIN_PROCESSES if old else effort.processes)
    # With enough processes a report can be compared with another, and then its memory should too.
    weighings = processes if processes >= MIN_PROCESSES else effort.weighings
    runtimes, others = choose(arguments.runtime, without_peers=arguments.no_peers)
    if importlib.util.find_spec("torch") is None:
        raise errors.MissingExtra("PyTorch, which everything is compared with,", "bench")
    request = Request(
        runtimes=runtimes,
        peers=others,
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        artifacts=arguments.artifacts,
        work=arguments.out / "peers",
        threads=arguments.threads,
        effort=replace(effort, processes=processes, weighings=weighings),
        seed=random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed,
        timeout=arguments.timeout,
        targets=parse_all(arguments.target or ["local"]),
        buckets=arguments.buckets,
        keep=arguments.keep,
        max_memory=arguments.max_memory,
        peer_python=_peer_python(arguments.peer_python) if others else "",
    )
    _check_folder(arguments.out)
    if old and not arguments.force and any(it.kind == "local" for it in request.targets):
        comparison.check_here(old, limits)
    report = bench(request, terminal.report)
    if not old:
        print(markdown(report), end="", flush=True)
    try:
        write(report, arguments.out)
    except errors.MissingExtra as missing:  # of page and pictures; the figures are written
        terminal.report(f"no page and no pictures: {missing}")
    for line in report.failures:
        terminal.report(f"failed: {line}")
    if report.settings["interrupted"]:
        return 130  # as a command that was interrupted
    if old:
        _compare(old, report, limits, arguments.force)
    return errors.EngineError.status if report.failures else 0


def _render(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        raise errors.UsageError("--render measures and compares nothing: leave --compare out")
    report = read(arguments.render)
    check_renderable(report)
    _check_folder(arguments.out)
    print(markdown(report), end="", flush=True)
    write(report, arguments.out)
    return 0


def _compare(old: Report, new: Report, limits: Mapping[str, Limit], force: bool) -> None:
    """Print the table; RegressionError if something is worse than allowed."""
    found = comparison.compare(old, new, limits, force=force)
    print(comparison.table(found), end="", flush=True)
    if failed := [line.name for line in found.failed]:
        more = f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        raise errors.RegressionError(f"worse than allowed: {', '.join(failed[:MAX_NAMED])}{more}")


def _baseline(arguments: argparse.Namespace) -> tuple[Report | None, Mapping[str, Limit]]:
    """Return the earlier run, if any, and what may not be worse than in it."""
    if arguments.compare is not None:
        limits = {} if arguments.fail_on is None else parse_limits(arguments.fail_on)
        return read(arguments.compare), limits
    for name, dest in (("--with", "new"), ("--fail-on", "fail_on"), ("--force", "force")):
        if getattr(arguments, dest) not in (None, False):
            raise errors.UsageError(f"{name} needs --compare")
    return None, {}


def _peer_python(given: Path | None) -> str:
    """Return the interpreter of the peers, empty for this one."""
    if given is None and not PEER_PYTHON.is_file():
        return ""
    path = (given or PEER_PYTHON).absolute()  # not resolved: an environment's is a link
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise errors.InputError(f"--peer-python: {given} is no Python interpreter")
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
            raise errors.UnknownName(f"no runtime named {name!r}; there are: {every}")
    runtimes = tuple(name for name in ours if name in chosen)
    systems = () if without_peers else tuple(name for name in others if name in chosen)
    if not runtimes and not systems:
        raise errors.UsageError("nothing is left to measure")
    return runtimes, systems


def _check_folder(out: Path) -> None:
    """Refuse a folder that could not be made, before two minutes are spent."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise errors.OutputError(f"cannot write {out}: {nearest} is not a folder")


def _threads(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


def _buckets(text: str) -> tuple[int, ...]:
    parts, most = text.split(","), plan.LONG
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= most for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no lengths of 1 to {most} tokens")
    return tuple(sorted({int(part) for part in parts}))


if __name__ == "__main__":
    sys.exit(main())
