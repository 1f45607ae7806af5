"""What another machine answers is not trusted: sizes, types, characters."""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asterisk.bench import machine
from asterisk.bench.spawn import CellError
from asterisk.common import terminal as printable

WIDEST = 4096  # of a vector
_MAGIC = b"\x93NUMPY\x01\x00"


def plain(value: Any) -> Any:
    """Return ``value`` from JSON with every text in it printable; CellError if it is too deep."""
    try:
        return printable.plain(value)
    except ValueError:
        raise CellError("answered with something other than a measurement") from None


def measurement(answer: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer to ``spec`` whose figures can be computed with; CellError otherwise."""
    clean: dict[str, Any] = plain(dict(answer))
    sound = "phases" not in clean or _phases(clean["phases"])
    if "latency" in clean:
        latency = clean["latency"]
        wanted = set(spec.get("buckets", ()))
        sound = sound and isinstance(latency, dict) and latency.keys() == wanted
        sound = sound and all(map(_samples, latency.values()))
    if "parts" in clean:
        sound = sound and _parts(clean["parts"])
    if "passes" in clean:
        sound = sound and _samples(clean["passes"])
    if "memory" in clean:
        sound = sound and _memory(clean["memory"])
    if "shared" in clean:
        sound = sound and _texts(clean["shared"])
    sound = sound and isinstance(clean.get("lessened", ""), str)
    stability = clean.get("stability")
    sound = sound and (stability is None or _finite(stability))
    if not sound:
        raise CellError("answered with something other than a measurement")
    return clean


def vectors(path: Path, count: int) -> None:
    """Check that ``path`` is a plain .npy file of float32 [``count``, d]; CellError otherwise.

    Source: the NPY format, version 1.0. Nothing is unpickled, and no numpy is imported.
    """
    data = path.read_bytes()
    try:
        (size,) = struct.unpack_from("<H", data, len(_MAGIC))
        start = len(_MAGIC) + 2
        header = ast.literal_eval(data[start : start + size].decode("latin-1").strip())
        rows, width = header["shape"]
        told = header["descr"], header["fortran_order"], data[: len(_MAGIC)]
        sound = told == ("<f4", False, _MAGIC) and rows == count and 1 <= width <= WIDEST
        sound = sound and len(data) == start + size + 4 * rows * width
    except (
        struct.error,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        MemoryError,
        RecursionError,
    ):
        sound = False
    if not sound:
        raise CellError(f"left vectors that are no float32 array of {count} rows")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _phases(values: Any) -> bool:
    named = isinstance(values, dict) and {"import", "load", "first"} <= values.keys()
    return named and all(map(_whole, values.values()))


def _samples(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(_whole(value) and value > 0 for value in values)
    )


def _parts(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(part, dict) and key.isdigit() and all(map(_samples, part.values()))
        for key, part in values.items()
    )


def _memory(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(phase, dict)
        and {"pss", "private", "rss", "peak"} <= phase.keys()
        and all(value is None or _whole(value) for value in phase.values())
        for phase in values.values()
    )


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def weight(value: Any) -> dict[str, int] | None:
    """Return what `asterisk.bench.installed.weigh` would, or None."""
    sound = isinstance(value, dict) and value.keys() == {"bytes", "base"}
    return value if sound and all(map(_whole, value.values())) else None


def state(value: Any) -> dict[str, Any]:
    """Return what `asterisk.bench.machine.state` would; CellError for anything else."""
    known = machine.state()
    sound = isinstance(value, dict) and known.keys() <= value.keys()
    if not sound or not all(_alike(value[key], key) for key in known):
        raise CellError("told something other than its state")
    return {key: value[key] for key in known}


def _alike(value: Any, key: str) -> bool:
    if key in ("governor", "throttled"):
        return isinstance(value, str)
    if isinstance(value, list):
        return all(map(_finite, value))
    return value is None or _finite(value)
