"""What the studies of recipes and of models have in common: options, quality, pages."""

from __future__ import annotations

import argparse
import io
import json
import random
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asterisk.bench import plan, process
from asterisk.bench.columns import MB, NONE, ms
from asterisk.bench.report import grid
from asterisk.bench.runner import Progress, Request
from asterisk.cli.bench import choose
from asterisk.cli.common import Parser, positive
from asterisk.common.errors import InputError, MissingExtra, UsageError
from asterisk.common.files import ARTIFACTS, replacing_file, shipped_checkpoint
from asterisk.common.terminal import report
from asterisk.runtimes import memory_budget as budget

TIMED = ("20", "128")  # tokens of the texts whose time counts
T = TypeVar("T")


class Cost(Protocol):
    """What was measured of a row: bytes of its files and of a process, milliseconds by tokens."""

    size: int
    pss: int | None
    ms: dict[str, float]


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Describe the options of both studies; what they mean is as for `asterisk-bench`."""
    it = Parser(prog=prog, description=description)
    it.add_argument("page", type=Path, metavar="PAGE", help="Markdown; JSON and PNG go beside it")
    it.add_argument("checkpoint", nargs="?", help="folder or name (default: the shipped one)")
    it.add_argument("--runtime", default="all", help="formats, and peers where there are any")
    it.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="default: %(default)s")
    it.add_argument("--peers", type=Path, default=Path("bench-results/peers"), help="their files")
    it.add_argument("--peer-python", default="", metavar="PATH", help="interpreter of the peers")
    it.add_argument("--processes", type=positive, help="processes a cell (default: 3)")
    it.add_argument("--thorough", action="store_true", help="measure each cell four times as long")
    it.add_argument("--seed", type=int, help="order of the cells (default: another every time)")
    it.add_argument("--timeout", type=positive, default=180, help="seconds a process (180)")
    it.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="folder of evaluation sets, for the page's quality; may be given several times",
    )
    it.add_argument("--split", choices=("dev", "test"), default="test", help="default: test")
    budget.add_option(it)
    return it


def request(arguments: argparse.Namespace, *, without_peers: bool) -> Request:
    """Return what to measure; AsteriskError for arguments that make no sense."""
    page = arguments.page
    if page.suffix != ".md":
        raise UsageError(f"a page ends in .md: {page}")
    for folder in arguments.data:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of evaluation sets")
    runtimes, peers = choose(arguments.runtime, without_peers=without_peers)
    formats = tuple(name for name in runtimes if name != plan.REFERENCE)
    if not formats:
        raise UsageError("no format is left to measure")
    effort = plan.THOROUGH if arguments.thorough else plan.QUICK
    processes = arguments.processes or effort.processes
    return Request(
        runtimes=formats,
        peers=peers,
        checkpoint=arguments.checkpoint or shipped_checkpoint(),
        artifacts=arguments.artifacts,
        work=arguments.peers,
        threads=(1,),
        effort=replace(effort, processes=processes),
        seed=random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed,
        timeout=arguments.timeout,
        max_memory=arguments.max_memory,
        peer_python=arguments.peer_python,
    )


def settings(request: Request, data: Sequence[Path], split: str) -> dict[str, Any]:
    """Return what a run was asked, as it is written down."""
    return {
        **{"argv": sys.argv[1:], "seed": request.seed, "effort": asdict(request.effort)},
        **{"data": [path.name for path in data], "split": split},
    }


class Quality:
    """Asks a process of its own how good something is; what fails is a line of ``failed``."""

    def __init__(
        self,
        data: Sequence[Path],
        split: str,
        progress: Progress,
        failed: dict[str, str],
        metrics: Sequence[str] = (),
    ) -> None:
        self.spec = {"data": [*map(str, data)], "split": split, "metrics": metrics}
        self.progress, self.failed = progress, failed

    def __call__(self, name: str, what: Mapping[str, str]) -> tuple[dict[str, float], int]:
        """Return the scores by metric and the number of dimensions."""
        self.progress(f"{name}: evaluating")
        python = what.get("python") or sys.executable
        try:
            spec = self.spec | {**what}
            answer = process.ask("benchmarks.quality", spec, None, python=(python,))
        except process.CellError as failure:
            earlier = [self.failed[name]] if name in self.failed else []
            self.failed[name] = "; ".join([*earlier, f"evaluation: {failure}"])
            return {}, 0
        return answer["quality"], answer["dimensions"]


def write(
    target: Path,
    run: Any,
    page: Callable[[Any, str | None], str],
    plot: Callable[[Any], bytes | None],
) -> None:
    """Write a page, its JSON and, with matplotlib, its picture; print the page."""
    picture = None
    try:
        picture = plot(run)
    except MissingExtra as missing:  # hours of measuring are not lost for a picture
        report(f"no picture: {missing}")
    text = page(run, target.with_suffix(".png").name if picture else None)
    target.parent.mkdir(parents=True, exist_ok=True)
    files = {".json": run.to_json().encode(), ".png": picture, ".md": text.encode()}
    for suffix, data in files.items():
        if data is not None:
            with replacing_file(target.with_suffix(suffix)) as staging:
                staging.write_bytes(data)
    print(text, end="", flush=True)


def png(figure: Any) -> bytes:
    """Return ``figure`` as PNG, the same bytes for the same drawing."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()


def to_json(run: Any) -> str:
    """Return the text of a run, a dataclass."""
    return json.dumps(asdict(run), indent=1) + "\n"


def read_json(text: str, kind: str, schema: int) -> dict[str, Any]:
    """Return the values that `to_json` wrote; ValueError for another schema."""
    values: dict[str, Any] = json.loads(text)
    if values.get("schema") != schema:
        raise ValueError(f"a {kind} of schema {values.get('schema')}, not {schema}")
    return values


def made_by(study: str, argv: Sequence[str]) -> str:
    """Say which command made a page."""
    return f"Made by `{command(study, argv)}`; the figures are in the JSON file beside it."


def command(study: str, argv: Sequence[str]) -> str:
    """Return the command as a reader would type it: absolute paths are the writer's own."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    return shlex.join(["python", "-m", study, *shown])


def warnings(warned: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """Return what a reader must know of a run, as paragraphs of the page."""
    lacking = [f"{name}: {line}" for name, line in sorted(failed.items())]
    return [
        f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines)
        for title, lines in (("Warnings", warned), ("Not in the table, or in part", lacking))
        if lines
    ]


def where(machine: Mapping[str, Any], effort: Mapping[str, Any]) -> str:
    """Say on what a run was measured."""
    what = [
        machine["cpu"],
        f"{machine['cores']} cores",
        f"{machine['system']} {machine['architecture']}",
        f"Python {machine['python']}",
        *(f"{name} {version}" for name, version in machine["packages"].items()),
    ]
    return f"{', '.join(what)}; processes a time: {effort['processes']}."


def columns(shown: Sequence[tuple[str, Callable[[T], str]]], things: Sequence[T], left: int) -> str:
    """Return a Markdown table of headings and what to show; the first ``left`` stand leftwards."""
    lines = [[show(thing) for _, show in shown] for thing in things]
    return grid([[heading for heading, _ in shown], *lines], range(left))


def size(it: Cost) -> str:
    """Show the bytes of its files."""
    return f"{it.size / MB:.1f}"


def pss(it: Cost) -> str:
    """Show the bytes that a process of it takes."""
    return NONE if it.pss is None else f"{it.pss / MB:.1f}"


def times() -> list[tuple[str, Callable[[Cost], str]]]:
    """Return a heading and what to show for each length that is `TIMED`."""

    def show(it: Cost, tokens: str) -> str:
        return ms(it.ms[tokens]) if tokens in it.ms else NONE

    return [(f"{tokens} tokens, ms", partial(show, tokens=tokens)) for tokens in TIMED]
