"""What a student can be asked for, as small losses that are added up.

Each gives a `Term`: its value over this process's texts and what that value counts for, so that
the shares of several processes add up to the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from asterisk.model.encoder import Encoder, pool
from asterisk.training.batches import Batch, Partners
from asterisk.training.distributed import Processes
from asterisk.training.recipe import TrainingRecipe

SAME = 0.999  # the teacher's cosine of a text and itself, or of what says the same


@dataclass(frozen=True, slots=True)
class Reading:
    """A student's output for a batch: its vectors [B, d], and tokens shaped as their targets.

    ``tokens`` float32 [B, T, d], or [B, T, H] where the teacher's states are as wide as its own.
    """

    tokens: Tensor
    sentences: Tensor


@dataclass(frozen=True, slots=True)
class Term:
    """A loss, a scalar, and ``counts``, a scalar: its share in a mean over processes."""

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
    """Cross entropy of finding each text's other half among the batch's, both ways.

    Row i of the first half of ``reading`` belongs to row i of the second; every other pair of the
    batch, of all processes, is a negative.
    """
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
    [n, d], as SEED does with a queue (Fang et al., arXiv 2101.04731). Unlike SEED's, a text is not
    among its own neighbours: it would take nearly all of the teacher's distribution.
    """
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
    """Cross entropy of finding a text's partner, as the teacher sees it, among many texts.

    InfoNCE from the student's query to the teacher's documents, which is how LEAF's asymmetric
    retrieval uses them (arXiv 2509.12539); negatives are the batch's other partners and ``bank``,
    float32 [n, d]. The mean is over all texts; those without a partner add nothing.
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


def terms(
    model: Encoder,
    batch: Batch,
    recipe: TrainingRecipe,
    weights: Mapping[str, float],
    *,
    processes: Processes,
    bank: Tensor | None = None,
    partners: Partners | None = None,
) -> dict[str, Term]:
    """Return the losses that have a weight, by name.

    `relation` and `contrast` need a ``bank``, `contrast` ``partners``, too.
    """
    reading = read(model, batch, recipe.amp)
    found = {}
    for name, loss in (("cosine", cosine), ("l2", l2), ("token", token)):
        if weights[name]:
            found[name] = loss(reading, batch)
    if weights["relation"] and bank is not None:
        found["relation"] = relation(reading, batch, bank, processes, recipe.relation_temperature)
    if weights["contrast"] and bank is not None and partners is not None:
        temperature = recipe.contrast_temperature
        found["contrast"] = contrast(
            reading, batch, bank, partners, processes=processes, temperature=temperature
        )
    if weights["pair"] and batch.paired:
        found["pair"] = infonce(reading, processes, recipe.temperature)
    return found


def _text_count(batch: Batch) -> Tensor:
    return torch.tensor(float(len(batch)), device=batch.ids.device)
