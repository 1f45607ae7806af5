"""The exceptions of this package, as one tree.

::

    AsteriskError                  exit status 1
    ├── UsageError                 2  an argument that makes no sense
    │   └── UnknownName            2  a format, recipe or runtime nobody registered
    ├── MissingPackage             3  a package that is not installed
    │   └── MissingExtra           3  one that an extra of this project brings
    ├── InputError                 4  text that cannot be embedded
    ├── ArtifactError              5  an artifact or checkpoint that cannot be trusted
    ├── FidelityError              6  vectors too far from the FP32 ones
    ├── OutputError                7  a result that could not be written
    ├── EngineError                8  an engine that failed after its input was checked
    ├── RegressionError            9  a benchmark with a figure worse than allowed
    └── BudgetError               10  a memory limit that is too low for the model

Every message is one line that a person can act on; commands print it and exit with the status.
"""

from __future__ import annotations


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
