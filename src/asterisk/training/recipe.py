"""Every choice a training run makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """A distillation run; two runs of one recipe on one machine give the same checkpoint.

    ``texts`` distinct texts are seen ``passes`` times in all, in batches of at most
    ``batch_tokens`` padded tokens. ``token_weight`` multiplies the token loss; for the last fifth
    of the run it is cut to a tenth, so that the sentence loss decides. Learning rates are Adam's,
    the table's apart because its rows are met rarely.
    """

    teacher: str = "all-MiniLM-L6-v2"
    texts: int = 160_000
    passes: int = 1_200_000
    held_out: int = 2_000
    batch_tokens: int = 2_048
    limit: int = 256
    token_weight: float = 3.0
    learning_rate: float = 1e-3
    table_learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.02
    seed: int = 0
