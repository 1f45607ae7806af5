"""The exceptions of this package, and checks of what callers pass.

Every message is one line that a person can act on. ``status`` is the exit status of a command.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import Any


class AsteriskError(Exception):
    """Anything this package raises on purpose."""

    status = 1


class UsageError(AsteriskError):
    """An argument that makes no sense."""

    status = 2


class UnknownName(UsageError):
    """A format, recipe or runtime that nobody registered."""


class MissingPackage(AsteriskError):
    """A package that is needed and not installed."""

    status = 3

    def __init__(self, package: str, advice: str = "") -> None:
        super().__init__(f"{package} is not installed{advice}")


class MissingExtra(MissingPackage):
    """A package that an extra of this project brings."""

    def __init__(self, package: str, extra: str) -> None:
        how = f"pip install 'asterisk-edge[{extra}]'"
        if extra == "peers":  # it would downgrade what the other extras pin
            how += " in an environment of its own, which --peer-python names (docs/benchmark.md)"
        super().__init__(package, f"; install it with: {how}")


class InputError(AsteriskError):
    """Text that cannot be embedded under the caller's rules."""

    status = 4


class ArtifactError(AsteriskError):
    """An artifact or checkpoint that is damaged, unknown or unsafe."""

    status = 5


class FidelityError(AsteriskError):
    """Vectors further from the FP32 ones than the recipe allows."""

    status = 6


class OutputError(AsteriskError):
    """A result that could not be written."""

    status = 7


class EngineError(AsteriskError):
    """An engine that failed although its input was checked."""

    status = 8


class RegressionError(AsteriskError):
    """A figure of a benchmark that is worse than an earlier one by more than allowed."""

    status = 9


class BudgetError(AsteriskError):
    """A memory limit under which the model cannot be opened."""

    status = 10


def one_line(failure: BaseException) -> str:
    """Return the message of ``failure`` without line breaks."""
    return " ".join(str(failure).split()) or type(failure).__name__


TEXTS = "texts must be a string or a list of strings"
_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set)  # iterable, and no list of texts


def strings(values: Any, expected: str = TEXTS) -> Iterator[str]:
    """Yield the strings of a list, tuple, iterator, one-dimensional array or pandas Series.

    UsageError for anything else: it names what was ``expected`` and the type that was given.
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
