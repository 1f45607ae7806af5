"""What a student's token is asked for: the teacher's states over the same characters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asterisk.training.teachers.teacher import Seen

Array = npt.NDArray[np.float32]


def token_targets(
    spans: npt.NDArray[np.int64], seen: Seen, states: Array, length: int
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return each token's mean state over its characters, float32 [tokens, d], and who has one.

    ``spans`` int64 [tokens, 2] are the student's characters in a text of ``length``; ``states``
    float32 [pieces, d] are the teacher's, rotated or not.
    """
    pieces, at = _by_character(seen.spans)
    piece_at = np.full(length, -1)
    piece_at[at] = pieces
    tokens, characters = _by_character(spans)
    read = piece_at[characters]
    real = read >= 0
    width = len(states)
    weights = np.bincount(tokens[real] * width + read[real], minlength=len(spans) * width)
    weights = weights.reshape(len(spans), width).astype("f4")
    totals = weights.sum(1, keepdims=True)
    return weights / np.maximum(totals, 1) @ states, totals[:, 0] > 0


def _by_character(
    spans: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for every character of every span, the span's index and the character's."""
    lengths = spans[:, 1] - spans[:, 0]
    owners = np.repeat(np.arange(len(spans)), lengths)
    shifts = spans[:, 0] - (np.cumsum(lengths) - lengths)
    return owners, np.arange(len(owners)) + shifts[owners]
