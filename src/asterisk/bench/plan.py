"""What is measured, how long and in which order; and a whole run written down in TOML.

::

    runtime = ["onnx", "gguf"]
    threads = [1, 4]
    buckets = [8, 20, 128]
    processes = 5
    target = ["local", "ssh://pi@pi5", "emu:cortex-a72"]

Peers import this module in the process that is measured: it imports the standard library only, and
what reads TOML inside functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
    """One line of the table: a model, how a worker opens it and what is known beforehand.

    ``opener`` is ``module:function``, called with ``path`` and ``threads``; ``modules`` are
    imported before it, so that importing an engine and loading a model are timed apart.
    ``distributions`` are the installed packages it needs and ``size`` the bytes of its files.
    ``model`` names what a peer runs instead of the checkpoint. ``reference`` is the .npy file with
    FP32 vectors of the first ``compared`` texts; empty for all texts as the row `REFERENCE` embeds
    them, or for a peer with another model, which then has none. ``thresholds`` are those of the
    artifact's recipe. ``spaces`` are the fingerprints of the embedding spaces that its vectors may
    be compared with: ``compatible_with`` in its manifest. ``python`` is the interpreter of a peer
    that has an environment of its own; ``installed`` and ``versions`` are the size and the versions
    of its distributions there.
    """

    name: str
    title: str
    recipe: str
    opener: str
    path: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    size: int
    peer: bool = False
    reference: str = ""
    compared: int = 0
    thresholds: Mapping[str, float] | None = None
    spaces: tuple[str, ...] = ()
    model: str = ""
    python: str = ""
    installed: dict[str, int] | None = None
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
    """How long a cell is measured.

    A loop of timed calls ends once it has both ``calls`` and ``seconds``, and in any case after
    ``most_seconds`` or ``cap`` samples; it is warm after both ``warm_calls`` and ``warm_seconds``.
    ``weighings`` are the processes in which a row's memory is read.
    """

    processes: int = 3
    warm_calls: int = 10
    warm_seconds: float = 0.5
    calls: int = 200
    seconds: float = 0.5
    most_seconds: float = 0.75
    cap: int = 2_000
    weighings: int = 1


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

    Memory comes first, ``weighings`` processes a row. Then come ``processes`` rounds over
    row x threads, each in an order of its own, so that a machine that warms up or throttles slows
    all rows alike. Latency is measured at the smallest number of threads only: one text is never
    split, so more threads change throughput alone.
    """
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    least = min(threads)
    planned = [Cell(row, "memory", 1, number) for number in range(weighings) for row in rows]
    order.shuffle(planned)
    for repetition in range(processes):
        round_: list[Cell] = []
        for row in rows:
            for count in sorted(set(threads)):
                kind: Kind = "latency" if count == least else "throughput"
                round_.append(Cell(row, kind, count, repetition))
        order.shuffle(round_)
        planned += round_
    return planned


Check = Callable[[str, Any], Any]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"{key} must be a text, not {_shown(value)}")
    return value


def _path(key: str, value: Any) -> Path:
    return Path(_text(key, value))


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{key} must be true or false, not {_shown(value)}")
    return value


def _number(most: int, least: int = 1) -> Check:
    def check(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"{key} must be a number from {least} to {most}, not {_shown(value)}")
        return value

    return check


def _list(key: str, value: Any, check: Check) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise UsageError(f"{key} is an empty list")
    return [check(key, item) for item in items]


def _numbers(most: int) -> Check:
    return lambda key, value: tuple(sorted(set(_list(key, value, _number(most)))))


def _targets(key: str, value: Any) -> list[str]:
    from asterisk.bench.targets import parse_all

    return [str(target) for target in parse_all(_list(key, value, _text))]


def _memory(key: str, value: Any) -> int:
    from asterisk.runtimes.memory_budget import parse

    try:
        return parse(_text(key, value))
    except UsageError as failure:
        raise UsageError(f"{key}: {failure}") from None


KEYS: Mapping[str, Check] = {
    "runtime": lambda key, value: ",".join(_list(key, value, _text)),
    "no-peers": _flag,
    "checkpoint": _text,
    "artifacts": _path,
    "out": _path,
    "threads": _numbers(MAX_THREADS),
    "buckets": _numbers(LONG),
    "processes": _number(MAX_COUNT),
    "thorough": _flag,
    "max-memory": _memory,
    "seed": _number((1 << 63) - 1, -(1 << 63)),
    "timeout": _number(MAX_COUNT),
    "target": _targets,
    "keep": _flag,
    "peer-python": _path,
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
    """Return a plan's ``values`` under argparse's names; UsageError names what is wrong.

    Paths are relative to where the command runs, as on the command line.
    """
    found = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"there is no {_shown(key)} in a plan; there are: {', '.join(KEYS)}")
        found[key.replace("-", "_")] = KEYS[key](key, value)
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
