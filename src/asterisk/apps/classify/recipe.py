"""How a head is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real

from asterisk.common.errors import UsageError

LIMITS = {
    "hidden": (0, 16_384),
    "epochs": (1, 10_000),
    "batch": (1, 65_536),
    "learning_rate": (1e-6, 1.0),
    "weight_decay": (0.0, 10.0),
    "dropout": (0.0, 0.95),
    "smoothing": (0.0, 0.5),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """One hidden layer of ``hidden`` units with ReLU; 0 for a linear head.

    Standardised vectors, AdamW, a rate that rises for a tenth of the steps and falls to nothing,
    cross-entropy with label smoothing. Chosen on a tenth of a training file held out, with the
    first checkpoint: the wide layer and the dropout matter, little else does. UsageError for
    values out of bounds.
    """

    hidden: int = 1_024
    epochs: int = 20
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    dropout: float = 0.5
    smoothing: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least, most = LIMITS[field.name]
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise UsageError(f"{field.name} must be {least:g} to {most:g}, not {value}")
