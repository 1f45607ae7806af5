"""A whole run written down in TOML: the options of the command line under the same names.

::

    runtime = ["onnx", "gguf"]
    threads = [1, 4]
    buckets = [8, 20, 128]
    processes = 5
    target = ["local", "ssh://pi@pi5", "emu:cortex-a72"]
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asterisk.bench.plan import LONG
from asterisk.bench.targets.parse import MOST, parse_all
from asterisk.common.errors import InputError, UsageError
from asterisk.common.text_files import open_text as opened
from asterisk.runtimes.memory_budget import parse as parse_size

LARGEST = 1 << 20  # bytes of a plan
MANY = 10**9
Check = Callable[[str, Any], Any]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise UsageError(f"{key} is a text, not {_shown(value)}")
    return value


def _path(key: str, value: Any) -> Path:
    return Path(_text(key, value))


def _yes(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{key} is true or false, not {_shown(value)}")
    return value


def _count(most: int, least: int = 1) -> Check:
    def check(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(f"{key} is a number from {least} to {most}, not {_shown(value)}")
        return value

    return check


def _each(one: Check) -> Check:
    def check(key: str, value: Any) -> list[Any]:
        some = value if isinstance(value, list) else [value]
        if not some:
            raise UsageError(f"{key} is an empty list")
        return [one(key, item) for item in some]

    return check


def _counts(most: int) -> Check:
    each = _each(_count(most))
    return lambda key, value: tuple(sorted(set(each(key, value))))


def _names(key: str, value: Any) -> str:
    return ",".join(_each(_text)(key, value))


def _targets(key: str, value: Any) -> list[str]:
    return [str(target) for target in parse_all(_each(_text)(key, value))]


def _memory(key: str, value: Any) -> int:
    try:
        return parse_size(_text(key, value))
    except UsageError as failure:
        raise UsageError(f"{key}: {failure}") from None


KEYS: Mapping[str, Check] = {
    "runtime": _names,
    "no-peers": _yes,
    "checkpoint": _text,
    "artifacts": _path,
    "out": _path,
    "threads": _counts(MOST),
    "buckets": _counts(LONG),
    "processes": _count(MANY),
    "thorough": _yes,
    "max-memory": _memory,
    "seed": _count((1 << 63) - 1, -(1 << 63)),
    "timeout": _count(MANY),
    "target": _targets,
    "keep": _yes,
    "peer-python": _path,
}


def read(path: Path) -> dict[str, Any]:
    """Return what the plan says, by the command line's names for it.

    InputError for a file that cannot be read, UsageError for one that cannot be meant.
    """
    try:
        with opened(path) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise InputError(f"{path} is no plan: larger than {LARGEST} bytes")
        return check(tomllib.loads(text))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as failure:
        raise InputError(f"{path} is not TOML: {failure}") from None
    except UsageError as failure:
        raise UsageError(f"{path}: {failure}") from None


def check(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` under the names that argparse gives them; UsageError names what is wrong.

    Paths are relative to where the command runs, as on the command line.
    """
    found = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"there is no {_shown(key)} in a plan; there are: {', '.join(KEYS)}")
        found[key.replace("-", "_")] = KEYS[key](key, value)
    return found


def planned(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Read ``argv`` again with the plan's values as defaults, so that options given win."""
    if arguments.plan is None:
        return arguments
    parser.set_defaults(**read(arguments.plan))
    again = parser.parse_intermixed_args(argv)
    again.target = arguments.target or again.target  # argparse would add to the plan's
    return again


def buckets(text: str) -> tuple[int, ...]:
    """Read ``8,20,128``; ArgumentTypeError for anything else."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= LONG for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no lengths of 1 to {LONG} tokens")
    return tuple(sorted({int(part) for part in parts}))


def _shown(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."
