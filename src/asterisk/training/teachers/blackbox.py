"""What a teacher must answer at least: a vector for each text.

`asterisk.training.teachers.teacher.Teacher` shows its token states as well; a black box does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import AsteriskError
from asterisk.training.teachers.teacher import Seen

Array = npt.NDArray[np.float32]


class Vectors(Protocol):
    """Sentence vectors of ``size`` dimensions for the texts of one part of a corpus."""

    @property
    def size(self) -> int:
        """How many dimensions there are."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on, as JSON."""

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """Return float32 [n, size], L2-normalised, for n texts, the first of them at ``start``."""


@runtime_checkable
class TokenStates(Protocol):
    """Vectors whose makers show what they made of each token."""

    def look(self, texts: Sequence[str]) -> list[Seen]:
        """Read every text."""


class BudgetSpent(AsteriskError):
    """What was allowed to be asked for is used up; what is done is kept."""


def unit_rows(values: npt.NDArray[Any], place: str, failure: type[AsteriskError]) -> Array:
    """Return float32 rows of length 1; ``failure`` if one is not finite or has no direction."""
    rows = np.asarray(values, "f8")
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 1e-12)))
    if len(wrong):
        raise failure(f"{place}: vector {wrong[0]} is zero or not finite")
    return np.asarray(rows / norms[:, None], "f4")
