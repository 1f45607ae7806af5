"""Training a head with PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from asterisk.apps.classify.head import Floats, Head, Layer
from asterisk.apps.classify.recipe import HeadRecipe
from asterisk.common.errors import InputError
from asterisk.common.validation import strings

FEWEST_STEPS = 500  # a few dozen texts need more passes than thousands do
Progress = Callable[[], None]


def fit(
    vectors: Floats,
    labels: Sequence[str],
    fingerprint: str,
    recipe: HeadRecipe | None = None,
    *,
    progress: Progress = lambda: None,
) -> Head:
    """Train a head on unit vectors float32 [n, dim] and the label of each.

    ``fingerprint`` names their embedding space; ``progress`` is called after every step. The
    same input and recipe on the same machine give the same head. InputError unless there are two
    labels and only finite vectors.
    """
    recipe = recipe or HeadRecipe()
    labels = list(strings(labels, "labels must be a list of strings"))
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise InputError("a head needs texts of two labels or more")
    if len(vectors) != len(labels) or not np.isfinite(vectors).all():
        raise InputError("a head needs a finite vector for every label")
    mean, scale = _standard(vectors)
    inputs = torch.from_numpy((vectors - mean) / scale)
    places = {name: place for place, name in enumerate(names)}
    targets = torch.tensor([places[label] for label in labels])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _network(vectors.shape[1], len(names), recipe)
        _train(model, inputs, targets, recipe, progress)
    return Head(names, _folded(model, mean, scale), fingerprint)


def _standard(vectors: Floats) -> tuple[Floats, Floats]:
    """Return mean and deviation of each dimension, float32 [dim]; no deviation is zero."""
    deviation = vectors.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    return vectors.mean(axis=0, dtype=np.float64).astype(np.float32), scale


def _network(dim: int, labels: int, recipe: HeadRecipe) -> nn.Sequential:
    if not recipe.hidden:
        return nn.Sequential(nn.Linear(dim, labels))
    return nn.Sequential(
        nn.Linear(dim, recipe.hidden),
        nn.ReLU(),
        nn.Dropout(recipe.dropout),
        nn.Linear(recipe.hidden, labels),
    )


def steps(recipe: HeadRecipe, rows: int) -> int:
    """Return how many steps a training on ``rows`` takes."""
    return max(recipe.epochs * math.ceil(rows / recipe.batch), FEWEST_STEPS)


def _train(
    model: nn.Sequential,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    recipe: HeadRecipe,
    progress: Progress,
) -> None:
    a_pass = math.ceil(len(inputs) / recipe.batch)
    total = steps(recipe, len(inputs))
    optimiser = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=total + 1, pct_start=0.1
    )
    model.train()
    done = 0
    while done < total:
        order = torch.randperm(len(inputs))
        for number in range(min(a_pass, total - done)):
            batch = order[number * recipe.batch : (number + 1) * recipe.batch]
            logits = model(inputs[batch])
            loss = functional.cross_entropy(
                logits, targets[batch], label_smoothing=recipe.smoothing
            )
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            done += 1
            progress()


def _folded(model: nn.Sequential, mean: Floats, scale: Floats) -> tuple[Layer, ...]:
    """Return the layers, with the standardisation inside the first one."""
    pairs = [
        (module.weight.detach().double().numpy(), module.bias.detach().double().numpy())
        for module in model
        if isinstance(module, nn.Linear)
    ]
    weight, bias = pairs[0]
    weight = weight / scale
    pairs[0] = weight, bias - weight @ mean
    return tuple(
        Layer(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in pairs
    )
