"""Reading a report that somebody else may have written: nothing in it is believed unchecked."""

from __future__ import annotations

import json
import stat
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from asterisk.bench.results import SCHEMA, Report
from asterisk.common.errors import InputError, one_line

LARGEST = 64 << 20  # a thorough run over every row, with all its samples, is under 20 MB
DEEPEST = 32
_MOST = 1 << 62


def read(path: Path) -> Report:
    """Read the report in ``path``; InputError, one line, unless it is one of this schema."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as failure:
        raise InputError(f"{path}: {failure.strerror or failure}") from None
    if len(data) > LARGEST:
        raise InputError(f"{path} is larger than {LARGEST >> 20} MiB: that is no report")
    try:
        text = data.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            schema = values.get("schema") if isinstance(values, dict) else None
            raise ValueError(f"a report of schema {schema!r}"[:60] + f", not {SCHEMA}")
        check(values, Report, "report")
        return Report.from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        told = one_line(failure)[:200] if type(failure) is ValueError else "it is damaged"
        raise InputError(f"{path} is not a report of asterisk-bench: {_plain(told)}") from None


def check(value: Any, hint: Any, where: str, depth: int = 0) -> None:
    """Raise ValueError unless ``value``, as JSON has it, is of the type ``hint``.

    Numbers have to be finite and within 62 bits, whatever the type; a dataclass is an object with
    no key that it does not know and every one that has no default.
    """
    if depth > DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    origin = get_origin(hint)
    if isinstance(value, int | float) and not abs(value) < _MOST:  # also when it is not a number
        raise ValueError(f"{where} is {value!r:.40}")
    if origin in (Union, types.UnionType):
        _check_any(value, get_args(hint), where, depth)
    elif origin is list and isinstance(value, list):
        for number, item in enumerate(value):
            check(item, get_args(hint)[0], f"{where}[{number}]", depth + 1)
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            check(item, get_args(hint)[1], f"{where}[{key!r:.40}]", depth + 1)
    elif is_dataclass(hint) and isinstance(value, dict):
        _check_object(value, hint, where, depth)
    elif hint is Any:
        _check_loose(value, where, depth)
    elif not _is_plain(value, hint):
        raise ValueError(f"{where} is no {getattr(hint, '__name__', hint)}")


def _check_any(value: Any, hints: tuple[Any, ...], where: str, depth: int) -> None:
    if value is None and type(None) in hints:
        return
    (hint,) = (hint for hint in hints if hint is not type(None))
    check(value, hint, where, depth)


def _check_object(value: Mapping[str, Any], hint: Any, where: str, depth: int) -> None:
    hints = get_type_hints(hint)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{where} has {unknown[0]!r:.40}, which no report has")
    for each in fields(hint):
        if each.name in value:
            check(value[each.name], hints[each.name], f"{where}.{each.name}", depth + 1)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where} has no {each.name}")


def _check_loose(value: Any, where: str, depth: int) -> None:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        check(item, Any, where, depth + 1)


def _is_plain(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint in (str, bool) and isinstance(value, hint)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}, which is no number")


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)
