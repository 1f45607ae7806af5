"""What a student can be asked for, as small losses that are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from asterisk.model.encoder import Encoder, pool
from asterisk.training.batches import Batch, Targets
from asterisk.training.distributed import Processes

BANK_SHARDS = 16
BANK_SAMPLE = 8_192
SAME = 0.999  # the teacher's cosine of a text and itself, or of what says the same


class Partners(NamedTuple):
    """The other texts of a batch's pairs, as the teacher sees them."""

    rows: Tensor  # int64 [k], the batch's texts that have one
    sentences: Tensor  # float32 [k, d]


class MemoryBank:
    """The teacher's vectors of the first shards, to compare with, and the texts' partners."""

    def __init__(self, targets: Targets, pairs: npt.NDArray[np.int64], seed: int) -> None:
        self._targets, self._seed = targets, seed
        self._partner = np.full(len(targets), -1)
        self._partner[pairs[:, 0]] = pairs[:, 1]
        self._partner[pairs[:, 1]] = pairs[:, 0]
        self._vectors: Tensor | None = None

    def sample(self, step: int) -> Tensor:
        """Return a step's vectors, float32 [`BANK_SAMPLE`, d]."""
        if self._vectors is None:
            numbers = range(min(BANK_SHARDS, self._targets.shards))
            shards = [torch.from_numpy(self._targets.sentences(number)) for number in numbers]
            self._vectors = torch.cat(shards)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        return self._vectors[torch.randint(len(self._vectors), (BANK_SAMPLE,), generator=generator)]

    def partners(self, indices: Sequence[int], device: torch.device) -> Partners:
        """Return the partners of the texts at ``indices``."""
        others = self._partner[np.asarray(indices, "i8")]
        rows = np.flatnonzero(others >= 0)
        sentences = self._targets.sentences_of(others[rows].tolist())
        return Partners(torch.from_numpy(rows).to(device), sentences.to(device))


class Reading(NamedTuple):
    """A student's output for a batch."""

    tokens: Tensor  # float32 [B, T, d], or [B, T, H] where the targets are as wide as its states
    sentences: Tensor  # float32 [B, d]


class Term(NamedTuple):
    """A loss over this process's texts, and its share in the mean over processes; scalars."""

    value: Tensor
    counts: Tensor


def read(model: Encoder, batch: Batch, amp: str) -> Reading:
    """Run the student; matrix products in bfloat16 if ``amp`` is "bf16"."""
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=amp == "bf16"):
        states = model.tokens(batch.ids, batch.mask)
    states = states.float()
    sentences = model.project(pool(states, batch.mask, model.config.pooling))
    if batch.tokens.shape[-1] != states.shape[-1]:
        states = model.project(states)
    return Reading(states, sentences)


def cosine(reading: Reading, batch: Batch) -> Term:
    """1 - cosine to the teacher's vector, mean over texts."""
    value = 1 - functional.cosine_similarity(reading.sentences, batch.sentences).mean()
    return Term(value, _text_count(batch))


def l2(reading: Reading, batch: Batch) -> Term:
    """Squared distance of unit vectors (LEAF, arXiv 2509.12539), mean over texts."""
    student = functional.normalize(reading.sentences, dim=-1)
    return Term((student - batch.sentences).square().sum(-1).mean(), _text_count(batch))


def token(reading: Reading, batch: Batch) -> Term:
    """Squared error of the tokens that have a target, over the power of the targets."""
    targets = batch.tokens[batch.asked]
    if not len(targets):
        return Term(reading.tokens.sum() * 0.0, torch.zeros((), device=targets.device))
    power = targets.square().mean()
    value = (reading.tokens[batch.asked] - targets).square().mean() / power
    return Term(value, power * len(targets))


def infonce(reading: Reading, processes: Processes, temperature: float) -> Term:
    """Cross entropy of finding row i of one half at row i of the other, both ways."""
    student = functional.normalize(reading.sentences, dim=-1)
    first, second = (processes.gather(half) for half in student.chunk(2))
    scores = first @ second.T / temperature
    own = torch.arange(len(scores), device=scores.device)
    value = (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.T, own)) / 2
    # Every process has the whole batch's loss, its gradient for its own texts alone.
    return Term(value, torch.ones((), device=scores.device))


def relation(
    reading: Reading, batch: Batch, bank: Tensor, processes: Processes, temperature: float
) -> Term:
    """KL divergence from the teacher's distribution over near texts to the student's.

    Both are softmax over cosines to the teacher's vectors of the batch and of ``bank``, float32
    [n, d], as SEED does with a queue (Fang et al., arXiv 2101.04731).
    """
    # Unlike SEED's, a text is not among its own neighbours: it would take nearly all.
    keys = torch.cat([processes.gather(batch.sentences), bank])
    student = functional.normalize(reading.sentences, dim=-1)
    cosines = batch.sentences @ keys.T
    itself = cosines > SAME
    lowest = torch.finfo(cosines.dtype).min
    teacher = functional.log_softmax((cosines / temperature).masked_fill(itself, lowest), 1)
    found = functional.log_softmax((student @ keys.T / temperature).masked_fill(itself, lowest), 1)
    value = functional.kl_div(found, teacher, log_target=True, reduction="batchmean")
    return Term(value, _text_count(batch))


def contrast(
    reading: Reading,
    batch: Batch,
    bank: Tensor,
    partners: Partners,
    *,
    processes: Processes,
    temperature: float,
) -> Term:
    """InfoNCE from the student's queries to the teacher's documents, as LEAF searches.

    Negatives are the batch's other partners and ``bank``, float32 [n, d]. The mean is over all
    texts; those without a partner add nothing.
    """
    documents = processes.gather(partners.sentences)
    first = processes.start(partners.sentences)
    own = torch.arange(len(partners.rows), device=bank.device) + first
    if not len(own) or len(documents) < 2:
        return Term(reading.sentences.sum() * 0.0, _text_count(batch))
    queries = functional.normalize(reading.sentences, dim=-1)[partners.rows]
    scores = queries @ torch.cat([documents, bank]).T / temperature
    value = functional.cross_entropy(scores, own) * len(own) / len(batch)
    return Term(value, _text_count(batch))


def _text_count(batch: Batch) -> Tensor:
    return torch.tensor(float(len(batch)), device=batch.ids.device)
