"""The fidelity gate: an artifact leaves only if its own runtime gives the right vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from asterisk import texts
from asterisk.artifact import Thresholds
from asterisk.errors import FidelityError
from asterisk.evaluation.fidelity import Fidelity, compare
from asterisk.runtimes.runtime import Runtime, Vectors

LENGTHS = (1, 2, 3, 5, 8, 13, 20, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 384, 511, 512)
STABLE = 32  # texts embedded alone and among others


def gate(
    candidate: Runtime,
    reference: Runtime,
    limits: Thresholds,
    progress: Callable[[str], None] = lambda told: None,
) -> dict[str, float]:
    """Compare ``candidate`` with the FP32 ``reference`` and return the figures.

    Over the texts that ship and over one text at every length of `LENGTHS`. FidelityError names
    the first figure outside ``limits``, a token id that differs, or a vector that depends on what
    is embedded with it.
    """
    shipped = [text.text for text in texts.load()]
    progress(f"comparing {len(shipped)} texts with FP32")
    _same_tokens(candidate, reference, shipped)
    ours, theirs = candidate.encode(shipped), reference.encode(shipped)
    if not (np.isfinite(ours).all() and ours.any(axis=1).all()):
        raise FidelityError("a vector is not finite, or all zeros")
    figures = compare(ours, theirs)
    _within(figures, limits)
    shortest = _lengths(candidate, reference, shipped)
    if not shortest >= limits.cosine_min:  # also when it is not a number
        raise FidelityError(
            f"cosine at some length from 1 to 512 is {shortest:.5f}, below {limits.cosine_min}"
        )
    _stable(candidate, shipped, ours)
    return figures.to_dict() | {"cosine_min_by_length": shortest}


def _same_tokens(candidate: Runtime, reference: Runtime, shipped: Sequence[str]) -> None:
    for text in shipped:
        if candidate.tokenize(text) != reference.tokenize(text):
            raise FidelityError(f"token ids differ for {text[:40]!r}")


def _within(figures: Fidelity, limits: Thresholds) -> None:
    for name in ("cosine_mean", "cosine_min", "overlap_at_10"):
        found, least = getattr(figures, name), getattr(limits, name)
        if not found >= least:
            raise FidelityError(f"{name} {found:.5f} is below the recipe's {least}")


def _lengths(candidate: Runtime, reference: Runtime, shipped: Sequence[str]) -> float:
    """Return the lowest cosine over texts cut to each length, read on across texts if short."""
    stream = [token for text in shipped for token in reference.tokenize(text)]
    cosines = []
    for index, length in enumerate(LENGTHS):
        if length > reference.config.max_positions:
            break
        ids = stream[index * 97 :][:length]
        a, b = candidate.embed_ids(ids), reference.embed_ids(ids)
        cosines.append(_cosine(a, b))
    return float(np.min(cosines))  # numpy's minimum keeps what is not a number


def _cosine(a: Vectors, b: Vectors) -> float:
    x, y = a.astype("f8"), b.astype("f8")
    lengths = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / lengths) if lengths else 0.0


def _stable(candidate: Runtime, shipped: Sequence[str], together: Vectors) -> None:
    for index in reversed(range(min(STABLE, len(shipped)))):
        if not np.array_equal(candidate.encode(shipped[index]), together[index]):
            raise FidelityError(f"the vector of {shipped[index][:40]!r} depends on its neighbours")
