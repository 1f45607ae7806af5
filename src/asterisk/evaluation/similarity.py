"""Pairs of texts: whether the cosine orders them as people do."""

from __future__ import annotations

import numpy as np

from asterisk.evaluation.items import Items, Precision, Ranks
from asterisk.evaluation.sets import Pairs
from asterisk.evaluation.spaces import Space, paired


def measure(pairs: Pairs, space: Space) -> dict[str, Items]:
    """Return Spearman's correlation, or average precision where scores are 0 and 1."""
    first, second = space([*pairs.first, *pairs.second], pairs.first, pairs.second)
    cosines, scores = paired(first, second), np.array(pairs.scores)
    if pairs.graded:
        return {"Spearman": Ranks(scores, cosines)}
    return {"average precision": Precision(scores > 0, cosines)}
