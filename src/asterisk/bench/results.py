"""What a run found, as one versioned value; the JSON is the truth, all else is rendered from it.

Somebody else may have written the JSON that is read: nothing in it is believed unchecked.
"""

from __future__ import annotations

import json
import re
import stat
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from asterisk.bench.statistics import Latency
from asterisk.common.errors import InputError, one_line

SCHEMA = 2
MAX_BYTES = 64 << 20  # a thorough run over every row, with all its samples, is under 20 MB
MAX_DEPTH = 32
MAX_ROWS = 1_000
_MAX_NUMBER = 1 << 62
_INTEGERS = re.compile(r"\[[\d,\s]+\]")


@dataclass(slots=True)
class RowResult:
    """One line of the table: one model on one target; figures are medians over processes."""

    name: str
    title: str
    recipe: str
    peer: bool
    size: int  # bytes of the model's files
    installed: dict[str, int] | None = None  # bytes of its packages
    latency: dict[str, Latency] = field(default_factory=dict)  # by tokens, one text, one thread
    samples_ns: dict[str, list[list[int]]] = field(default_factory=dict)  # by tokens and process
    parts_ms: dict[str, dict[str, float]] = field(default_factory=dict)  # by tokens and part
    parts_ns: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict)
    throughput: dict[str, float] = field(default_factory=dict)  # texts a second by threads
    passes_ns: dict[str, list[list[int]]] = field(default_factory=dict)  # over the mixed list
    start_ms: dict[str, float] = field(default_factory=dict)  # by phase: import, load, first
    starts_ns: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[str, dict[str, int | None]] = field(default_factory=dict)  # by phase and kind
    weighings: list[dict[str, dict[str, int | None]]] = field(default_factory=list)  # by process
    shared: list[str] = field(default_factory=list)  # packages that another process mapped too
    fidelity: dict[str, float] | None = None  # to its own FP32 vectors
    below: list[str] = field(default_factory=list)  # the thresholds that it misses
    faster: dict[str, dict[str, float]] = field(default_factory=dict)  # by peer and tokens
    failures: list[str] = field(default_factory=list)  # a line a process without an answer
    target: str = "local"  # one of the report's targets
    instructions: dict[str, float] = field(default_factory=dict)  # million by tokens, if emulated
    stability: float | None = None  # smallest cosine of a text alone and in a list
    lessened: dict[str, str] = field(default_factory=dict)  # what a memory limit did, by threads
    invalid: list[str] = field(default_factory=list)  # why its times are void
    model: str = ""  # what a peer runs, if not the checkpoint
    padding: float | None = None  # share of the tokens of the mixed list
    faster_engine: dict[str, dict[str, float]] = field(default_factory=dict)  # the engine alone


@dataclass(slots=True)
class Report:
    """A whole run: what was asked, on which machine, what came out."""

    checkpoint: dict[str, str]
    settings: dict[str, Any]
    machine: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    warnings: list[str]
    rows: list[RowResult]
    failed: dict[str, str]  # rows that could not be prepared
    schema: int = SCHEMA
    # By name: kind (local, ssh, emu), machine, before, between rounds, after, warnings.
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By the row of the queries, then by that of the index.
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
        """Read what `to_json` wrote; ValueError for anything else."""
        values = json.loads(text, parse_constant=_refuse)
        schema = values.get("schema") if isinstance(values, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"a report of schema {schema!r}"[:60] + f", not {SCHEMA}")
        check(values, cls, "report")
        for row in values["rows"]:
            row["latency"] = {n: Latency(**figures) for n, figures in row["latency"].items()}
        return cls(**values | {"rows": [RowResult(**row) for row in values["rows"]]})


def read(path: Path) -> Report:
    """Read the report in ``path``; InputError, one line, unless it is one of this schema."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise InputError(f"{path}: {failure.strerror or failure}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MiB: that is no report")
    try:
        return Report.from_json(data.decode("utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        reason = one_line(failure)[:200] if type(failure) is ValueError else "it is damaged"
        reason = "".join(sign if sign.isprintable() else "?" for sign in reason)
        raise InputError(f"{path} is not a report of asterisk-bench: {reason}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}, which is no number")


def check(value: Any, hint: Any, where: str, depth: int = 0) -> None:
    """Raise ValueError unless ``value``, as JSON has it, is of the type ``hint``.

    Numbers have to be finite and within 62 bits, whatever the type. A dataclass is an object with
    every key that has no default and no unknown one.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:  # also if not a number
        raise ValueError(f"{where} is {value!r:.40}")
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):  # of one type and None
        if value is not None:
            (some,) = set(get_args(hint)) - {type(None)}
            check(value, some, where, depth)
    elif origin in (list, dict) and isinstance(value, origin):
        for key, item in value.items() if origin is dict else enumerate(value):
            check(item, get_args(hint)[-1], f"{where}[{key!r:.40}]", depth + 1)
    elif is_dataclass(hint) and isinstance(value, dict):
        _check_object(value, hint, where, depth)
    elif hint is Any:
        values = value.values() if isinstance(value, dict) else value
        for item in values if isinstance(value, dict | list) else ():
            check(item, Any, where, depth + 1)
    elif not isinstance(value, (int, float) if hint is float else origin or hint) or (
        isinstance(value, bool) and hint is not bool
    ):
        raise ValueError(f"{where} is no {getattr(hint, '__name__', hint)}")


def _check_object(value: Mapping[str, Any], hint: Any, where: str, depth: int) -> None:
    hints = get_type_hints(hint)
    if unknown := sorted(set(value) - set(hints)):
        raise ValueError(f"{where} has {unknown[0]!r:.40}, which no report has")
    for each in fields(hint):
        if each.name in value:
            check(value[each.name], hints[each.name], f"{where}.{each.name}", depth + 1)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where} has no {each.name}")


# What is shown of the parts that are declared as Any: what has to be there, and what may be.
_SHOWN: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "checkpoint": ({"name": str}, {}),
    "settings": ({"buckets": list[int], "threads": list[int], "peers": list[str],
                  "effort": dict[str, Any], "seed": int},
                 {"argv": list[str], "max_memory": int | None}),
    "machine": ({"cpu": str, "cores": int | None, "system": str, "architecture": str,
                 "python": str, "packages": dict[str, str]},
                {"ram_bytes": int | None, "cgroup_limit_bytes": int | None, "isa": list[str],
                 "git": dict[str, Any]}),
}  # fmt: skip
_TARGET = {"kind": str, "machine": dict[str, Any] | None, "before": dict[str, Any] | None,
           "after": dict[str, Any] | None, "warnings": list[str] | None}  # fmt: skip
# Figures by tokens or threads, which are shown in the order of these numbers.
_NUMBERED = ("latency", "samples_ns", "throughput", "parts_ms", "instructions")


def check_renderable(report: Report) -> None:
    """Raise InputError, in one line, for a report that cannot be rendered."""
    try:
        if len(report.rows) > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        for part, (needed, optional) in _SHOWN.items():
            if missing := [name for name in needed if name not in getattr(report, part)]:
                raise ValueError(f"{part} has no {missing[0]}")
            _check_items(getattr(report, part), {**needed, **optional}, part)
        check(report.settings["effort"].get("processes"), int, "settings.effort.processes")
        for name, target in report.targets.items():
            where = f"targets[{name!r:.40}]"
            _check_items(target, _TARGET, where)
            _check_items(target.get("machine") or {}, {"ram_bytes": int | None}, where)
        for row in report.rows:
            figures = [getattr(row, name) for name in _NUMBERED]
            figures += [*row.faster.values(), *row.faster_engine.values()]
            for key in (key for some in figures for key in some):
                if not (key.isascii() and key.isdigit() and len(key) < 10):
                    raise ValueError(f"{key!r:.40} is no number of tokens or threads")
            if row.installed is not None and "bytes" not in row.installed:
                raise ValueError("installed has no bytes")
    except ValueError as failure:
        raise InputError(f"this report cannot be rendered: {one_line(failure)[:200]}") from None


def _check_items(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    for name, kind in kinds.items():
        if name in values:
            check(values[name], kind, f"{where}.{name}")
