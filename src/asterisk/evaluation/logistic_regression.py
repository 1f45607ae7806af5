"""Logistic regression over vectors, by default with one hidden layer before it.

It is trained with PyTorch and run with numpy alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, InputError, UsageError, strings

if TYPE_CHECKING:
    import torch
    from torch import nn

Floats = npt.NDArray[np.float32]

MOST_LABELS = 10_000
MOST_LAYERS = 4
BLOCK = 256  # rows: a wide hidden layer must not be in memory for all texts at once
FEWEST_STEPS = 500  # a few dozen texts need more passes than thousands do


def _number(default: float, least: float, most: float) -> Any:
    return field(default=default, metadata={"limits": (least, most)})


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """One hidden layer with ReLU, or none; UsageError for values out of bounds.

    Vectors are standardised; AdamW's learning rate rises for a tenth of the steps and then falls to
    zero; the loss is cross-entropy with label smoothing. Chosen on a held-out tenth of a training
    file with the first checkpoint: the wide layer and the dropout matter, little else does.
    """

    hidden: int = _number(1_024, 0, 16_384)  # units; 0 for a linear classifier
    epochs: int = _number(20, 1, 10_000)
    batch: int = _number(256, 1, 65_536)
    learning_rate: float = _number(3e-3, 1e-6, 1)
    weight_decay: float = _number(1e-2, 0, 10)
    dropout: float = _number(0.5, 0, 0.95)
    smoothing: float = _number(0.1, 0, 0.5)
    seed: int = _number(0, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        for each in fields(self):
            value, (least, most) = getattr(self, each.name), each.metadata["limits"]
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise UsageError(f"{each.name} must be {least:g} to {most:g}, not {value}")

    def steps(self, rows: int) -> int:
        """Return how many steps a training on ``rows`` vectors takes."""
        return max(self.epochs * math.ceil(rows / self.batch), FEWEST_STEPS)


@dataclass(frozen=True, slots=True)
class Layer:
    """``weight`` float32 [out, in] and ``bias`` float32 [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Classifier:
    """Layers with ReLU between them, over unit vectors of the embedding space ``fingerprint``.

    ArtifactError unless the layers fit each other and the ``labels``.
    """

    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        if not 2 <= len(self.labels) <= MOST_LABELS or len(set(self.labels)) < len(self.labels):
            raise ArtifactError(f"a head needs 2 to {MOST_LABELS} different labels")
        if not 1 <= len(self.layers) <= MOST_LAYERS:
            raise ArtifactError(f"a head has 1 to {MOST_LAYERS} layers")
        size = self.layers[0].weight.shape[-1]
        for number, layer in enumerate(self.layers):
            if layer.weight.shape != (len(layer.bias), size) or not size or not len(layer.bias):
                raise ArtifactError(f"layer {number} of the head does not fit the one before it")
            size = len(layer.bias)
        if size != len(self.labels):
            raise ArtifactError(f"the head has {size} outputs for {len(self.labels)} labels")

    @property
    def dim(self) -> int:
        """How many of a vector's first elements it takes."""
        return int(self.layers[0].weight.shape[1])

    def logits(self, vectors: Floats) -> Floats:
        """Return logits [n, labels]; UsageError unless vectors are finite float32 [n, dim]."""
        found = getattr(vectors, "dtype", type(vectors).__name__)
        if found != np.float32 or vectors.ndim != 2 or vectors.shape[1] != self.dim:
            shape = list(getattr(vectors, "shape", ()))
            raise UsageError(f"vectors must be float32 [n, {self.dim}], not {found} {shape}")
        if not np.isfinite(vectors).all():
            raise UsageError("vectors hold values that are not finite")
        out = np.empty((len(vectors), len(self.labels)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the outcome is checked
            for start in range(0, len(vectors), BLOCK):
                rows = vectors[start : start + BLOCK]
                for number, layer in enumerate(self.layers):
                    if number:
                        rows = np.maximum(rows, np.float32(0))
                    rows = rows @ layer.weight.T + layer.bias
                out[start : start + BLOCK] = rows
        if not np.isfinite(out).all():
            raise ArtifactError("the head's weights are too large for float32")
        return out

    def probabilities(self, vectors: Floats) -> Floats:
        """Return the softmax of `logits`, float32 [n, labels]."""
        logits = self.logits(vectors)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = raised / raised.sum(axis=1, keepdims=True)
        return shares

    def predict(self, vectors: Floats) -> list[str]:
        """Return the most probable label of each vector."""
        return [self.labels[best] for best in self.logits(vectors).argmax(axis=1)]


def fit(
    vectors: Floats,
    labels: Sequence[str],
    fingerprint: str,
    recipe: HeadRecipe | None = None,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Classifier:
    """Train a classifier on unit vectors float32 [n, dim] and the label of each; needs PyTorch.

    ``progress`` is called after every step. The same input and recipe on the same machine give the
    same classifier. InputError unless there are two labels and only finite vectors.
    """
    import torch
    from torch import nn

    recipe = recipe or HeadRecipe()
    labels = list(strings(labels, "labels must be a list of strings"))
    names = tuple(sorted(set(labels)))
    if len(names) < 2:
        raise InputError("a head needs texts of two labels or more")
    if len(vectors) != len(labels) or not np.isfinite(vectors).all():
        raise InputError("a head needs a finite vector for every label")
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = vectors.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    inputs = torch.from_numpy((vectors - mean) / scale)
    numbers = {name: number for number, name in enumerate(names)}
    targets = torch.tensor([numbers[label] for label in labels])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        sizes = [vectors.shape[1], *([recipe.hidden] if recipe.hidden else []), len(names)]
        linears = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
        between = [nn.ReLU(), nn.Dropout(recipe.dropout)] if recipe.hidden else []
        model = nn.Sequential(linears[0], *between, *linears[1:])
        _train(model, inputs, targets, recipe, progress)
    layers = [[each.detach().double().numpy() for each in (it.weight, it.bias)] for it in linears]
    layers[0][0] /= scale  # the standardisation is part of the first layer
    layers[0][1] -= layers[0][0] @ mean
    floats = ([each.astype(np.float32) for each in layer] for layer in layers)
    return Classifier(names, tuple(Layer(*layer) for layer in floats), fingerprint)


def _train(
    model: nn.Sequential,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    recipe: HeadRecipe,
    progress: Callable[[], None],
) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    total, rate = recipe.steps(len(inputs)), recipe.learning_rate
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=total + 1, pct_start=0.1
    )
    model.train()
    step = 0
    while step < total:
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), recipe.batch)[: total - step]:
            batch = order[start : start + recipe.batch]
            logits = model(inputs[batch])
            loss = cross_entropy(logits, targets[batch], label_smoothing=recipe.smoothing)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            step += 1
            progress()
