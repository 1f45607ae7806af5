"""The bar to beat: the best static token table, whose mean row is a text's vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from asterisk.training.batches import Targets

SIF = 3e-4
LINE = 1_000
Array = npt.NDArray[np.float32]
Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class BagRecipe:
    """A run of at most ``epochs``; it ends when ``patience`` of them brought nothing better."""

    epochs: int = 4
    batch: int = 256
    learning_rate: float = 1e-2
    patience: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bag:
    """``rows`` float32 [vocabulary, d], a text's vector being the mean of its tokens' rows.

    ``cosine`` is the mean held-out cosine to the teacher after ``epochs`` over ``texts`` texts;
    ``line`` that of the first ``LINE`` held-out texts, which a student's curve looks at too.
    """

    rows: Array
    cosine: float
    line: float
    epochs: int
    texts: int


@dataclass(frozen=True, slots=True)
class _Texts:
    """Every text's tokens end to end: int64 ``ids`` [N], ``ends`` [n]; ``sentences`` [n, d]."""

    ids: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    sentences: npt.NDArray[np.float16]

    @classmethod
    def of(cls, targets: Targets) -> _Texts:
        numbers = range(targets.size)
        return cls(
            np.concatenate([targets.ids(number) for number in numbers]),
            np.cumsum(targets.all_lengths()),
            np.concatenate([targets.sentences(number).astype("f2") for number in numbers]),
        )

    def batches(self, order: npt.NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, ...]]:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            begins = np.where(chosen > 0, self.ends[chosen - 1], 0)
            lengths = self.ends[chosen] - begins
            offsets = np.cumsum(lengths) - lengths
            where = np.arange(lengths.sum()) + np.repeat(begins - offsets, lengths)
            yield (
                torch.from_numpy(self.ids[where]),
                torch.from_numpy(offsets),
                torch.from_numpy(self.sentences[chosen].astype("f4")),
            )


def sif(rows: Array, counts: npt.NDArray[np.int64]) -> Array:
    """Return token means centred and weighed by a / (a + p) (Arora et al., ICLR 2017)."""
    shares = counts / max(counts.sum(), 1)
    centre = (shares @ rows).astype("f4")
    weighed: Array = ((rows - centre) * (SIF / (SIF + shares))[:, None]).astype("f4")
    return weighed


def fit(
    start: Array,
    train: Targets,
    held_out: Targets,
    recipe: BagRecipe,
    report: Report = lambda epoch, cosine: None,
) -> Bag:
    """Train rows from ``start``, float32 [vocabulary, d], on the sentence loss alone.

    ``report`` is told each epoch's held-out cosine. The best epoch's rows are returned.
    """
    known, asked = _Texts.of(train), _Texts.of(held_out)
    counts = np.bincount(known.ids, minlength=len(start))
    rows = torch.from_numpy(sif(start, counts)).requires_grad_()
    optimiser = torch.optim.SparseAdam([rows], lr=recipe.learning_rate)
    best = _bag(rows, asked, 0, len(train))
    report(0, best.cosine)
    random = np.random.default_rng(recipe.seed)
    steps = recipe.epochs * -(-len(train) // recipe.batch)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        for ids, offsets, sentences in known.batches(random.permutation(len(train)), recipe.batch):
            optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / steps)
            vectors = functional.embedding_bag(ids, rows, offsets, mode="mean", sparse=True)
            loss = 1 - functional.cosine_similarity(vectors, sentences).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()  # type: ignore[no-untyped-call]
            step += 1
        found = _bag(rows, asked, epoch, len(train))
        report(epoch, found.cosine)
        if found.cosine > best.cosine:
            best = found
        elif epoch - best.epochs >= recipe.patience:
            break
    return best


@torch.no_grad()
def _bag(rows: Tensor, texts: _Texts, epoch: int, count: int) -> Bag:
    found = [
        functional.cosine_similarity(
            functional.embedding_bag(ids, rows, offsets, mode="mean"), sentences
        )
        for ids, offsets, sentences in texts.batches(np.arange(len(texts.ends)), 1_024)
    ]
    cosines = torch.cat(found)
    table = rows.detach().numpy().copy()
    return Bag(table, float(cosines.mean()), float(cosines[:LINE].mean()), epoch, count)
