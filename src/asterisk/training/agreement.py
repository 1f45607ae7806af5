"""How near a student's vectors are to its teacher's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from asterisk.model.encoder import Encoder, pool
from asterisk.training.batches import Targets


def cosine_to_teacher(
    model: Encoder, targets: Targets, limit: int | None = None, *, indices: range | None = None
) -> float:
    """Return the mean cosine to the teacher's vectors of the texts that `vectors` takes."""
    found = vectors(model, targets, limit=limit, indices=indices)
    return float(functional.cosine_similarity(*found).mean())


@torch.inference_mode()
def vectors(
    model: Encoder,
    targets: Targets,
    *,
    skip: int | None = None,
    limit: int | None = None,
    indices: range | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's vectors, float32 [n, d] each, in no set order.

    Of the texts at ``indices``, or the first ``limit``. Block ``skip`` is bypassed, if given.
    """
    ours, theirs = [], []
    device = next(model.parameters()).device
    chosen = indices if indices is not None else range(len(targets))[:limit]
    order = targets.all_lengths()[chosen.start : chosen.stop].argsort(kind="stable") + chosen.start
    for start in range(0, len(order), 32):
        batch = targets.gather(order[start : start + 32].tolist()).to(device)
        x = model.embeddings(batch.ids)
        bias = (~batch.mask)[:, None, None, :] * torch.finfo(x.dtype).min
        for index, block in enumerate(model.blocks):
            x = x if index == skip else block(x, bias)
        pooled = pool(x, batch.mask, model.config.pooling)
        ours.append(model.project(pooled))
        theirs.append(batch.sentences)
    return torch.cat(ours), torch.cat(theirs)
