"""`asterisk-bench`: one table over every runtime."""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asterisk.bench import peers as systems
from asterisk.bench import plan
from asterisk.bench.outputs import write
from asterisk.bench.plan import REFERENCE
from asterisk.bench.planfile import buckets, planned
from asterisk.bench.reading import read
from asterisk.bench.render import markdown
from asterisk.bench.renderable import check_renderable
from asterisk.bench.run import bench
from asterisk.bench.statistics import ENOUGH
from asterisk.bench.targets.parse import parse_all
from asterisk.bench.work import Request
from asterisk.cli.bench_compare import add_options, baseline
from asterisk.cli.common import Parser, positive, run
from asterisk.common import plugins
from asterisk.common.errors import (
    EngineError,
    InputError,
    MissingExtra,
    OutputError,
    UnknownName,
    UsageError,
)
from asterisk.common.files import ARTIFACTS, replacing_file, shipped_checkpoint
from asterisk.common.terminal import report as tell
from asterisk.runtimes import memory_budget as budget

RESULTS = Path("bench-results")
PEER_PYTHON = Path(".venv-peers/bin/python")
TIMEOUT = 180
INTERRUPTED = 130
ORDER = ("torch", "onnx", "tflite", "gguf")  # of the table; formats of others follow


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
        help="all (default; of the peers the usual two), peers (every one), or names with commas "
        f"between: torch, a format, {', '.join(systems.names())}",
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
        "--threads", type=_counts, default=(1, 2), help="texts at once, such as 1,2 (default)"
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
        type=buckets,
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
    add_options(it)
    pareto = it.add_argument_group("instead of that")
    pareto.add_argument(
        "--render",
        type=Path,
        metavar="JSON",
        help="write tables, CSV, HTML and pictures of this past run into --out, measuring nothing",
    )
    pareto.add_argument(
        "--pareto",
        type=Path,
        metavar="PAGE",
        help="measure every recipe of every format and write this Markdown page, its JSON and, "
        "with matplotlib, its plot",
    )
    pareto.add_argument(
        "--models",
        type=Path,
        metavar="PAGE",
        help="measure every checkpoint of the project, all-MiniLM-L6-v2, one of yours and the "
        "peers, and write the same three files",
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
    return run(parser(), lambda arguments: _bench(planned(parser(), arguments, argv)), argv)


def _bench(arguments: argparse.Namespace) -> int:
    page = arguments.pareto or arguments.models
    if arguments.pareto and arguments.models:
        raise UsageError("--pareto and --models are two runs: one at a time")
    if arguments.data and page is None:
        raise UsageError("--data needs --pareto or --models")
    if arguments.render is not None:
        return _render(arguments)
    earlier = baseline(arguments)
    if earlier and arguments.new:
        earlier.finish(read(arguments.new))
        return 0
    without_peers = arguments.no_peers or arguments.pareto is not None
    runtimes, peers = choose(arguments.runtime, without_peers=without_peers)
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("PyTorch, which everything is compared with,", "bench")
    effort = plan.THOROUGH if arguments.thorough else plan.QUICK
    processes = arguments.processes or (ENOUGH if earlier else effort.processes)
    # With enough processes a report can be compared with another, and then its memory should too.
    weighings = processes if processes >= ENOUGH else effort.weighings
    seed = arguments.seed
    request = Request(
        runtimes=runtimes,
        peers=peers,
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        artifacts=arguments.artifacts,
        work=arguments.out / "peers",
        threads=arguments.threads,
        effort=replace(effort, processes=processes, weighings=weighings),
        seed=random.SystemRandom().randrange(1 << 32) if seed is None else seed,
        timeout=arguments.timeout,
        targets=parse_all(arguments.target or ["local"]),
        buckets=arguments.buckets,
        keep=arguments.keep,
        max_memory=arguments.max_memory,
        peer_python=_peer_python(arguments.peer_python) if peers else "",
    )
    if page is not None:
        return _page(arguments, request, page)
    _check(arguments.out)
    if earlier and any(target.kind == "local" for target in request.targets):
        earlier.check_here()
    report = bench(request, tell)
    if not earlier:
        print(markdown(report), end="", flush=True)
    try:
        write(report, arguments.out)
    except MissingExtra as lacking:  # of page and pictures; the figures are written
        tell(f"no page and no pictures: {lacking}")
    for line in report.failures:
        tell(f"failed: {line}")
    if report.settings["interrupted"]:
        return INTERRUPTED
    if earlier:
        earlier.finish(report)
    return EngineError.status if report.failures else 0


def _render(arguments: argparse.Namespace) -> int:
    if arguments.pareto or arguments.models or arguments.compare is not None:
        raise UsageError(
            "--render measures and compares nothing: leave --pareto, --models and --compare out"
        )
    report = read(arguments.render)
    check_renderable(report)
    _check(arguments.out)
    print(markdown(report), end="", flush=True)
    write(report, arguments.out)
    return 0


def _page(arguments: argparse.Namespace, request: Request, target: Path) -> int:
    """Measure what ``target`` is to show, and write it, its JSON and its picture."""
    if target.suffix != ".md":
        raise UsageError(f"a page ends in .md: {target}")
    for folder in arguments.data:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of evaluation sets")
    _check(target.parent)
    formats = tuple(name for name in request.runtimes if name != REFERENCE)
    if not formats:
        raise UsageError("no format is left to measure")
    request = replace(request, runtimes=formats)
    pages: Any
    run: Any
    if arguments.models is None:
        from asterisk.bench import pareto_page as pages
        from asterisk.bench.pareto_run import measure_recipes

        run = measure_recipes(request, arguments.data, arguments.split, tell)
    else:
        from asterisk.bench import models_page as pages
        from asterisk.bench.models_run import measure_models

        chosen = _models(arguments.checkpoint)
        run = measure_models(request, chosen, arguments.data, arguments.split, tell)
    picture = None
    try:
        picture = pages.plot(run)
    except MissingExtra as lacking:  # hours of measuring are not lost for a picture
        tell(f"no picture: {lacking}")
    text = pages.page(run, target.with_suffix(".png").name if picture else None)
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix, data in {
        ".json": run.to_json().encode(),
        ".png": picture,
        ".md": text.encode(),
    }.items():
        if data is not None:
            with replacing_file(target.with_suffix(suffix)) as staging:
                staging.write_bytes(data)
    print(text, end="", flush=True)
    return 0


def _models(own: str | None) -> dict[str, str | Path]:
    """Return the models that are compared, folders or names by name."""
    from asterisk.bench.models_run import TEACHER

    shipped = sorted(shipped_checkpoint().parent.iterdir())
    found: dict[str, str | Path] = {folder.name: folder for folder in shipped if folder.is_dir()}
    return found | {TEACHER: TEACHER} | ({} if own is None else {Path(own).resolve().name: own})


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
    known = tuple(
        dict.fromkeys((*(name for name in ORDER if name in ("torch", *formats)), *formats))
    )
    others = systems.names()
    groups = {"all": (*known, *systems.USUAL), "peers": others}
    chosen = [name for part in names.split(",") for name in groups.get(part, (part,))]
    for name in chosen:
        if name not in (*known, *others):
            there = ", ".join(("all", "peers", *known, *others))
            raise UnknownName(f"no runtime named {name!r}; there are: {there}")
    runtimes = tuple(name for name in known if name in chosen)
    peers = () if without_peers else tuple(name for name in others if name in chosen)
    if not runtimes and not peers:
        raise UsageError("nothing is left to measure")
    return runtimes, peers


def _check(out: Path) -> None:
    """Refuse a folder that could not be made, before two minutes are spent."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"cannot write {out}: {nearest} is not a folder")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive(part) for part in text.split(",")}))


if __name__ == "__main__":
    sys.exit(main())
