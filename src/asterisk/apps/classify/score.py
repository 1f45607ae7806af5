"""How well a head does on labelled vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asterisk.apps.classify.head import Floats, Head
from asterisk.common.errors import InputError


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of 1: ``accuracy``, and ``macro_f1`` over the labels told or predicted.

    ``unknown`` counts the texts whose label the head does not have; they are wrong.
    """

    texts: int
    accuracy: float
    macro_f1: float
    unknown: int


def score(head: Head, vectors: Floats, labels: Sequence[str]) -> Score:
    """Compare the head's predictions for float32 [n, dim] with the n true ``labels``."""
    if not len(labels) or len(labels) != len(vectors):
        raise InputError("scoring needs a vector for every label, and one at least")
    told = np.array(head.predict(vectors), dtype=object)
    true = np.array(labels, dtype=object)
    shares = []
    for label in sorted({*told, *true}):
        both = np.count_nonzero((told == label) & (true == label))
        either = np.count_nonzero(told == label) + np.count_nonzero(true == label)
        shares.append(2 * both / either)
    unknown = sum(label not in head.labels for label in labels)
    accuracy = float(np.mean(told == true))
    return Score(len(labels), accuracy, float(np.mean(shares)), unknown)
