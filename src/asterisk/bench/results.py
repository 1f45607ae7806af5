"""What a run found, as one versioned value; the JSON is the truth, all else is rendered from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from asterisk.bench.summary import Latency

SCHEMA = 2
_INTEGERS = re.compile(r"\[[\d,\s]+\]")


@dataclass(slots=True)
class RowResult:
    """One line of the table: one model on one target.

    ``latency`` by tokens of the text, one text a call on one thread, with its ``samples_ns`` by
    process; ``parts_ms`` by tokens, the median of tokenising and of the engine alone, with its
    ``parts_ns`` by part and process, empty for a row that cannot be taken apart;
    ``throughput`` in texts a second by threads, with the ``passes_ns`` over the mixed list;
    ``start_ms`` by phase (import, load, first call), medians over processes, with its ``starts_ns``
    by process; ``memory`` in bytes by phase (start, import, load, first, steady, long, batch), None
    where the system does not tell, medians over the ``weighings``, one a process; ``shared`` the
    packages another process mapped meanwhile; ``size`` of the model's files and ``installed`` of
    its packages in bytes;
    ``fidelity`` to its own FP32 vectors and ``below`` the thresholds it misses; ``faster`` than
    each peer, a ratio of medians by tokens, end to end, and ``faster_engine`` of the engine alone.
    ``model`` is the one that a peer runs, if not the checkpoint; ``padding`` the share of padding
    among the tokens that the mixed list is computed with. ``target`` names one of the report's
    targets;
    ``instructions`` are million guest instructions an encode by tokens, of emulated targets only,
    which have no times; ``stability`` the smallest cosine between a text embedded alone and in a
    list of mixed lengths; ``lessened`` by threads what a memory limit did not allow; ``invalid``
    the reasons why the row's times are void.
    """

    name: str
    title: str
    recipe: str
    peer: bool
    size: int
    installed: dict[str, int] | None = None
    latency: dict[str, Latency] = field(default_factory=dict)
    samples_ns: dict[str, list[list[int]]] = field(default_factory=dict)
    parts_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    parts_ns: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict)
    throughput: dict[str, float] = field(default_factory=dict)
    passes_ns: dict[str, list[list[int]]] = field(default_factory=dict)
    start_ms: dict[str, float] = field(default_factory=dict)
    starts_ns: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[str, dict[str, int | None]] = field(default_factory=dict)
    weighings: list[dict[str, dict[str, int | None]]] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    fidelity: dict[str, float] | None = None
    below: list[str] = field(default_factory=list)
    faster: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    target: str = "local"
    instructions: dict[str, float] = field(default_factory=dict)
    stability: float | None = None
    lessened: dict[str, str] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    model: str = ""
    padding: float | None = None
    faster_engine: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """A whole run: what was asked, on which machine, what came out.

    ``failed`` has a line for every row that could not be prepared; a row's own ``failures`` one for
    every process that gave no answer. ``targets`` has by name the ``kind`` (local, ssh or emu),
    ``machine``, ``before``, ``between`` rounds, ``after`` and ``warnings`` of each target;
    ``interchange`` by the row that embedded the queries, then by the row that embedded the index,
    ``cosine_mean`` and ``overlap_at_10``.
    """

    checkpoint: dict[str, str]
    settings: dict[str, Any]
    machine: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: list[str]
    rows: list[RowResult]
    failed: dict[str, str]
    schema: int = SCHEMA
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    interchange: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """One line for everything that failed."""
        lines = [f"{name}: {line}" for name, line in self.failed.items()]
        return lines + [line for row in self.rows for line in row.failures]

    def to_json(self) -> str:
        """Return the report's text, each list of samples on one line."""
        text = json.dumps(asdict(self), indent=1)
        return _INTEGERS.sub(lambda found: re.sub(r"\s+", "", found.group()), text) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote; ValueError for another schema."""
        values = json.loads(text)
        if values.get("schema") != SCHEMA:
            raise ValueError(f"a report of schema {values.get('schema')}, not {SCHEMA}")
        rows = [_row(row) for row in values.pop("rows")]
        return cls(rows=rows, **values)


def _row(values: Mapping[str, Any]) -> RowResult:
    latency = {tokens: Latency(**figures) for tokens, figures in values["latency"].items()}
    return RowResult(**{**values, "latency": latency})
