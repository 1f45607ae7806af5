"""What is measured, how long and in which order; and a whole run written down in TOML.

Peers import this module in the process that is measured: it imports the standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from asterisk.common.errors import InputError, UsageError

Kind = Literal["memory", "latency", "throughput", "vectors"]
BUCKETS = (8, 20, 128)  # tokens of the checkpoint, special ones included
STEADY = 20  # tokens of the texts that memory is measured with
LONG = 512
REFERENCE = "torch"
MAX_THREADS = 256
MAX_PLAN_BYTES = 1 << 20
MAX_COUNT = 10**9


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a model, how a worker opens it and what is known beforehand."""

    name: str
    title: str
    recipe: str
    opener: str  # ``module:function``, called with ``path`` and ``threads``
    path: str
    modules: tuple[str, ...]  # imported before it: importing and loading are timed apart
    distributions: tuple[str, ...]  # the installed packages it needs
    size: int  # bytes of its files
    peer: bool = False
    # The .npy file with FP32 vectors of the first ``compared`` texts. Empty for all texts as the
    # row `REFERENCE` embeds them, or for a peer with another model, which then has none.
    reference: str = ""
    compared: int = 0
    thresholds: Mapping[str, float] | None = None  # of the artifact's recipe
    spaces: tuple[str, ...] = ()  # ``compatible_with`` in its manifest
    model: str = ""  # what a peer runs instead of the checkpoint
    python: str = ""  # the interpreter of a peer that has an environment of its own
    installed: dict[str, int] | None = None  # the size and versions of its distributions there
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Build from what ``dataclasses.asdict`` and JSON made of one."""
        lists = {name: tuple(values[name]) for name in ("modules", "distributions", "spaces")}
        return cls(**{**values, **lists})

    @property
    def limited(self) -> bool:
        """Whether a memory limit can hold it: PyTorch and the peers know none."""
        return not self.peer and self.name != REFERENCE


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a cell is measured; loops are warm after ``warm_calls`` and ``warm_seconds``."""

    processes: int = 3
    warm_calls: int = 10
    warm_seconds: float = 0.5
    calls: int = 200  # timed ones end once there were so many in at least ``seconds``,
    seconds: float = 0.5
    most_seconds: float = 0.75  # and in any case after that time or number
    cap: int = 2_000
    weighings: int = 1  # processes in which a row's memory is read


QUICK = Effort()
THOROUGH = Effort(processes=5, seconds=2.0, most_seconds=30.0, cap=5_000)


@dataclass(frozen=True, slots=True)
class Cell:
    """One worker process: what of which row, with how many threads, for the nth time."""

    row: str
    kind: Kind
    threads: int
    repetition: int

    @property
    def round(self) -> tuple[bool, int]:
        """Equal for the cells of one round; the machine's state is read between rounds."""
        return self.kind == "memory", self.repetition

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.row} {self.kind}, {threads}, process {self.repetition + 1}"


def cells(
    rows: Sequence[str], threads: Sequence[int], processes: int, seed: int, weighings: int = 1
) -> list[Cell]:
    """Return every cell in the order of measurement, the same for the same ``seed``.

    Memory comes first. Then come ``processes`` rounds over row x threads, each in an order of its
    own, so that a machine that warms up or throttles slows all rows alike. Latency is measured at
    the smallest number of threads only: one text is never split.
    """
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    kinds: dict[int, Kind] = dict.fromkeys(sorted(set(threads)), "throughput")
    kinds[min(threads)] = "latency"
    planned = [Cell(row, "memory", 1, number) for number in range(weighings) for row in rows]
    order.shuffle(planned)
    for repetition in range(processes):
        round_ = [Cell(row, kinds[n], n, repetition) for row in rows for n in kinds]
        order.shuffle(round_)
        planned += round_
    return planned


class Key(NamedTuple):
    """What a plan may have under a name."""

    kind: type
    listed: bool = False  # one or several of them
    most: int = MAX_COUNT  # of a number
    least: int = 1
    read: Callable[[Any], Any] = lambda value: value

    def wanted(self, value: Any) -> str:
        """Return what a value should be; empty if it is."""
        if self.kind is str:
            sound = isinstance(value, str) and value and value.isprintable()
            return "" if sound else "a text"
        if self.kind is bool:
            return "" if isinstance(value, bool) else "true or false"
        sound = type(value) is int and self.least <= value <= self.most
        return "" if sound else f"a number from {self.least} to {self.most}"


def _sorted(numbers: list[int]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers)))


def _targets(texts: list[str]) -> list[str]:
    from asterisk.bench.targets import parse_all

    return [str(target) for target in parse_all(texts)]


def _memory(text: str) -> int:
    from asterisk.runtimes.memory_budget import parse

    try:
        return parse(text)
    except UsageError as failure:
        raise UsageError(f"max-memory: {failure}") from None


KEYS: Mapping[str, Key] = {
    "runtime": Key(str, listed=True, read=",".join),
    "no-peers": Key(bool),
    "checkpoint": Key(str),
    "artifacts": Key(str, read=Path),
    "out": Key(str, read=Path),
    "threads": Key(int, listed=True, most=MAX_THREADS, read=_sorted),
    "buckets": Key(int, listed=True, most=LONG, read=_sorted),
    "processes": Key(int),
    "thorough": Key(bool),
    "max-memory": Key(str, read=_memory),
    "seed": Key(int, most=(1 << 63) - 1, least=-(1 << 63)),
    "timeout": Key(int),
    "target": Key(str, listed=True, read=_targets),
    "keep": Key(bool),
    "peer-python": Key(str, read=Path),
}


def read_plan(path: Path) -> dict[str, Any]:
    """Return the options in a plan file, under the names that argparse gives them.

    InputError for a file that cannot be read, UsageError for a value that makes no sense.
    """
    import tomllib

    from asterisk.common.text_files import open_text

    try:
        with open_text(path) as file:
            text = file.read(MAX_PLAN_BYTES + 1)
        if len(text) > MAX_PLAN_BYTES:
            raise InputError(f"{path} is larger than {MAX_PLAN_BYTES} bytes: that is no plan")
        return check(tomllib.loads(text))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as failure:
        raise InputError(f"{path} is not TOML: {failure}") from None
    except UsageError as failure:
        raise UsageError(f"{path}: {failure}") from None


def check(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan's ``values`` under argparse's names; UsageError names what is wrong."""
    found = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"there is no {_shown(key)} in a plan; there are: {', '.join(KEYS)}")
        rules = KEYS[key]
        items = value if rules.listed and isinstance(value, list) else [value]
        if not items:
            raise UsageError(f"{key} is an empty list")
        for item in items:
            if wanted := rules.wanted(item):
                raise UsageError(f"{key} must be {wanted}, not {_shown(item)}")
        found[key.replace("-", "_")] = rules.read(items if rules.listed else value)
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
