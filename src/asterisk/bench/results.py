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
    """One line of the table: one model on one target.

    ``latency`` by tokens of the text, one text a call on one thread, with its ``samples_ns`` by
    process; ``parts_ms`` by tokens, the median of tokenising and of the engine alone, with its
    ``parts_ns`` by part and process, empty for a row that cannot be taken apart;
    ``throughput`` in texts a second by threads, with the ``passes_ns`` over the mixed list;
    ``start_ms`` by phase (import, load, first call), medians over processes, with its ``starts_ns``
    by process; ``memory`` in bytes by phase (start, import, load, first, steady, long, batch), None
    where the system does not say, medians over the ``weighings``, one a process; ``shared`` the
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
        rows = []
        for row in values.pop("rows"):
            latency = {tokens: Latency(**figures) for tokens, figures in row["latency"].items()}
            rows.append(RowResult(**{**row, "latency": latency}))
        return cls(rows=rows, **values)


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
        text = data.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            schema = values.get("schema") if isinstance(values, dict) else None
            raise ValueError(f"a report of schema {schema!r}"[:60] + f", not {SCHEMA}")
        check(values, Report, "report")
        return Report.from_json(text)
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
    elif not _is_plain(value, hint):
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


def _is_plain(value: Any, hint: Any) -> bool:
    if hint in (int, float):
        kinds = int if hint is int else int | float
        return isinstance(value, kinds) and not isinstance(value, bool)
    return hint in (str, bool) and isinstance(value, hint)


# What is shown of the parts that are declared as Any.
_NEEDED: Mapping[str, Mapping[str, Any]] = {
    "checkpoint": {"name": str},
    "settings": {"buckets": list[int], "threads": list[int], "peers": list[str],
                 "effort": dict[str, Any], "seed": int},
    "machine": {"cpu": str, "cores": int | None, "system": str, "architecture": str,
                "python": str, "packages": dict[str, str]},
}  # fmt: skip
_OPTIONAL: Mapping[str, Mapping[str, Any]] = {
    "settings": {"argv": list[str], "max_memory": int | None},
    "machine": {"ram_bytes": int | None, "cgroup_limit_bytes": int | None,
                "isa": list[str], "git": dict[str, Any]},
}  # fmt: skip
_TARGET: Mapping[str, Any] = {
    "kind": str,
    "machine": dict[str, Any] | None,
    "before": dict[str, Any] | None,
    "after": dict[str, Any] | None,
    "warnings": list[str] | None,
}
# Figures by tokens or threads, which are shown in the order of these numbers.
_NUMBERED = ("latency", "samples_ns", "throughput", "parts_ms", "instructions")


def check_renderable(report: Report) -> None:
    """Raise InputError, in one line, for a report that cannot be rendered."""
    try:
        if len(report.rows) > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        for part, kinds in _NEEDED.items():
            for name in kinds:
                if name not in getattr(report, part):
                    raise ValueError(f"{part} has no {name}")
            _check_items(getattr(report, part), {**kinds, **_OPTIONAL.get(part, {})}, part)
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
