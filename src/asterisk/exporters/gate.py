"""The fidelity gate: an artifact leaves only if its own runtime gives the right vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from asterisk.artifact import Thresholds
from asterisk.common import texts
from asterisk.common.errors import FidelityError
from asterisk.evaluation.fidelity import Fidelity, compare
from asterisk.runtimes.runtime import Runtime, Vectors
from asterisk.tokenizer import Tokenizer

LENGTHS = (1, 2, 3, 5, 8, 13, 20, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 384, 511, 512)
STABLE = 32  # texts embedded alone and among others
CALIBRATION = 120  # of the texts that ship, and of the user's, to calibrate rounding on
Progress = Callable[[str], None]


class Reference:
    """The FP32 runtime of a checkpoint, the texts of the gate, and their vectors, made once.

    The texts are those that ship and then ``more``, the user's own.
    """

    def __init__(self, runtime: Runtime, more: Sequence[str] = ()) -> None:
        self.runtime = runtime
        self.shipped = [text.text for text in texts.load()]
        self.more = list(more)
        self.texts = [*self.shipped, *self.more]

    @cached_property
    def vectors(self) -> Vectors:
        """The FP32 vectors of `texts`, float32 [n, d], not normalised."""
        return self.runtime.encode(self.texts, prompt="", normalize=False)

    @cached_property
    def samples(self) -> list[list[int]]:
        """Token ids of some of the texts, special ones included, to calibrate rounding on."""
        chosen = [text for some in (self.shipped, self.more) for text in _spread(some)]
        return [self.runtime.tokenize(text) for text in chosen]


def _spread(some: Sequence[str]) -> Sequence[str]:
    return some[:: max(1, len(some) // CALIBRATION)][:CALIBRATION]


def gate(
    candidate: Runtime,
    reference: Reference,
    limits: Thresholds,
    progress: Progress = lambda told: None,
) -> dict[str, float]:
    """Compare ``candidate`` with the FP32 ``reference`` and return the figures.

    Over the reference's texts and over one text at every length of `LENGTHS` that the model can
    read. FidelityError names the first figure outside ``limits``, a token id that differs, or a
    vector that depends on what is embedded with it.
    """
    some, truth = reference.texts, reference.runtime
    progress(f"comparing {len(some)} texts with FP32")
    for text in some:
        if candidate.tokenize(text) != truth.tokenize(text):
            raise FidelityError(f"token ids differ for {text[:40]!r}")
    theirs = reference.vectors
    ours = candidate.encode(some, prompt="", normalize=False)
    if not (np.isfinite(ours).all() and ours.any(axis=1).all()):
        raise FidelityError("a vector is not finite, or all zeros")
    figures = compare(ours, theirs)
    _within(figures, limits)
    shortest = _lengths(candidate, truth, some)
    if not shortest >= limits.cosine_min:  # also when it is not a number
        raise FidelityError(
            f"cosine at some length from 1 to {truth.longest} is {shortest:.5f}, "
            f"below {limits.cosine_min}"
        )
    _stable(candidate, some, ours)
    return figures.to_dict() | {"cosine_min_by_length": shortest}


def _within(figures: Fidelity, limits: Thresholds) -> None:
    for name in ("cosine_mean", "cosine_min", "overlap_at_10"):
        found, least = getattr(figures, name), getattr(limits, name)
        if not found >= least:
            raise FidelityError(f"{name} {found:.5f} is below the recipe's {least}")


def _lengths(candidate: Runtime, truth: Runtime, some: Sequence[str]) -> float:
    """Return the lowest cosine over texts cut to each length, read on across texts if short."""
    tokenizer: Tokenizer = truth.tokenizer
    specials = len(tokenizer.prefix) + len(tokenizer.suffix)
    stream = [token for text in some for token in tokenizer.encode(text, truth.longest)]
    cosines = []
    for index, length in enumerate(LENGTHS):
        if specials <= length <= truth.longest:
            content = stream[index * 97 :][: length - specials]
            ids = tokenizer.with_special_tokens(content)
            cosines.append(_cosine(candidate.embed_ids(ids), truth.embed_ids(ids)))
    return float(np.min(cosines))  # numpy's minimum keeps what is not a number


def _cosine(a: Vectors, b: Vectors) -> float:
    x, y = a.astype("f8"), b.astype("f8")
    lengths = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / lengths) if lengths else 0.0


def _stable(candidate: Runtime, some: Sequence[str], together: Vectors) -> None:
    for index in reversed(range(min(STABLE, len(some)))):
        alone = candidate.encode(some[index], prompt="", normalize=False)
        if not np.array_equal(alone, together[index]):
            raise FidelityError(f"the vector of {some[index][:40]!r} depends on its neighbours")
