"""The exceptions of this package, each with one line to act on, and checks of arguments."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import Any


class AsteriskError(Exception):
    """Anything this package raises on purpose."""

    status = 1  # the exit status of a command

    def __init_subclass__(cls, status: int = 0) -> None:
        cls.status = status or cls.status


class UsageError(AsteriskError, status=2):
    """An argument that makes no sense."""


class UnknownName(UsageError):
    """A format, recipe or runtime that nobody registered."""


class MissingPackage(AsteriskError, status=3):
    """A package that is needed and not installed."""

    def __init__(self, package: str, advice: str = "") -> None:
        super().__init__(f"{package} is not installed{advice}")


class MissingExtra(MissingPackage):
    """A package that an extra of this project brings."""

    def __init__(self, package: str, extra: str) -> None:
        how = f"pip install 'asterisk-edge[{extra}]'"
        if extra == "peers":  # it would downgrade what the other extras pin
            how += " in an environment of its own, which --peer-python names (docs/benchmark.md)"
        super().__init__(package, f"; install it with: {how}")


class InputError(AsteriskError, status=4):
    """Text that cannot be embedded under the caller's rules."""


class ArtifactError(AsteriskError, status=5):
    """An artifact or checkpoint that is damaged, unknown or unsafe."""


class FidelityError(AsteriskError, status=6):
    """Vectors further from the FP32 ones than the recipe allows."""


class OutputError(AsteriskError, status=7):
    """A result that could not be written."""


class EngineError(AsteriskError, status=8):
    """An engine that failed although its input was checked."""


class RegressionError(AsteriskError, status=9):
    """A figure of a benchmark that is worse than an earlier one by more than allowed."""


class BudgetError(AsteriskError, status=10):
    """A memory limit under which the model cannot be opened."""


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
