"""What is measured, how long and in which order. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["memory", "latency", "throughput", "vectors"]
BUCKETS = (8, 20, 128)  # tokens of the checkpoint, special ones included
STEADY = 20  # tokens of the texts that memory is measured with
LONG = 512
REFERENCE = "torch"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a model, how a worker opens it and what is known beforehand.

    ``opener`` is ``module:function``, called with ``path`` and ``threads``; ``modules`` are
    imported before it, so that importing an engine and loading a model are timed apart.
    ``distributions`` are the installed packages it needs and ``size`` the bytes of its files.
    ``model`` names what a peer runs instead of the checkpoint. ``reference`` is the .npy file with
    FP32 vectors of the first ``compared`` texts; empty for all texts as the row `REFERENCE` embeds
    them, or for a peer with another model, which then has none. ``thresholds`` are those of the
    artifact's recipe and ``spaces`` the fingerprints of the embedding spaces that its vectors may
    be compared with, as its manifest has them in ``compatible_with``. ``python`` is the interpreter
    of a peer that has an environment of its own, ``installed`` and ``versions`` what its
    distributions weigh and are there.
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


def limited(row: Row) -> bool:
    """Tell whether ``row`` can be held to a memory limit: PyTorch and the peers know none."""
    return not row.peer and row.name != REFERENCE


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
        """What the cells of one round have in common; between rounds the machine is looked at."""
        return self.kind == "memory", self.repetition

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.row} {self.kind}, {threads}, process {self.repetition + 1}"


def cells(
    rows: Sequence[str],
    threads: Sequence[int],
    processes: int,
    seed: int,
    weighings: int = 1,
) -> list[Cell]:
    """Return every cell in the order of measurement, the same for the same ``seed``.

    Memory comes first, ``weighings`` processes a row. Then ``processes`` rounds over row x threads,
    each round in an order of its own, so that a machine that warms up or throttles is shared out
    evenly.
    Latency is measured at the smallest number of threads only: one text is never split, so more
    threads change throughput alone.
    """
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    least = min(threads)
    memory = [Cell(row, "memory", 1, number) for number in range(weighings) for row in rows]
    order.shuffle(memory)
    planned = memory
    for repetition in range(processes):
        round_: list[Cell] = []
        for row in rows:
            for count in sorted(set(threads)):
                kind: Kind = "latency" if count == least else "throughput"
                round_.append(Cell(row, kind, count, repetition))
        order.shuffle(round_)
        planned += round_
    return planned
