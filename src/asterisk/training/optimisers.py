"""Which optimiser moves which parameter, and how fast at each point of a run."""

from __future__ import annotations

from typing import Any

import torch

from asterisk.model.encoder import Encoder
from asterisk.training.recipe import TrainingRecipe

FLOOR = 1e-3


def optimisers(model: Encoder, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices, AdamW for the rest, sparse Adam for the table.

    Muon (K. Jordan, 2024; torch.optim.Muon) took a tenth fewer steps than AdamW to any loss. Where
    the recipe names AdamW, it has the matrices too.
    """
    table = model.embeddings.word_embeddings
    table.sparse = True  # a step touches a few hundred of 50,259 rows
    muon = recipe.optimiser == "muon"
    blocks = {id(p) for p in model.encoder.parameters() if muon and p.ndim == 2}
    rest = [p for p in model.parameters() if p is not table.weight and id(p) not in blocks]
    wide: dict[str, Any] = {"params": [p for p in rest if p.ndim > 1]}
    scales: dict[str, Any] = {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0}
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [wide, scales],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        ),
        torch.optim.SparseAdam([table.weight], lr=recipe.table_learning_rate),
    ]
    if blocks:
        found.append(
            torch.optim.Muon(
                [p for p in model.encoder.parameters() if p.ndim == 2],
                lr=recipe.matrix_learning_rate,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for optimiser in found:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return found


def set_rates(found: list[torch.optim.Optimizer], recipe: TrainingRecipe, done: float) -> None:
    """Set every learning rate for a run of which ``done``, 0 to 1, is behind it.

    Flat between warm-up and decay, so that a run can be made longer until its decay begins.
    """
    rate = share_of_peak(recipe, done)
    for optimiser in found:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["peak"]


def share_of_peak(recipe: TrainingRecipe, done: float) -> float:
    """Return every learning rate as a share of its peak: up, flat, down."""
    up = done / recipe.warmup if recipe.warmup else 1.0
    down = (1 - done) / recipe.decay if recipe.decay else 1.0
    return max(min(up, 1.0, down), FLOOR)
