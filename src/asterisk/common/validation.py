"""Callers' arguments: lists of strings, whole numbers, one of a few names."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import Any

from asterisk.common.errors import UsageError

TEXTS = "texts must be a string or a list of strings"
_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set)  # iterable, and no list of texts


def strings(values: Any, expected: str = TEXTS) -> Iterator[str]:
    """Yield the strings of a list, tuple, iterator, one-dimensional array or pandas Series.

    UsageError says what was ``expected``, and the type that was given, with its index for an item.
    A dictionary, a set, bytes and a single string are no list.
    """
    kind = "None" if values is None else type(values).__name__
    axes = getattr(values, "ndim", 1)
    if isinstance(values, _NO_LISTS) or not isinstance(values, Iterable) or axes != 1:
        raise UsageError(f"{expected}, not {kind}" + (f" of {axes} axes" if axes != 1 else ""))
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise UsageError(f"{expected}, but item {index} is {type(value).__name__}")
        yield value


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number, NumPy's too, as an int; UsageError for others and for True."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise UsageError(f"{name} must be {bounds}, not {value!r}")
    return number


def one_of(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise UsageError unless ``value`` is among ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
