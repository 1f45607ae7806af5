"""Every choice a training run makes, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from asterisk.common.errors import UsageError

AMP = ("bf16", "off")
OPTIMISERS = ("muon", "adamw")


def _check(name: str, holds: bool, told: str) -> None:
    if not holds:
        raise UsageError(f"--{name.replace('_', '-')} must be {told}")


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """A distillation run; two runs of one recipe on one machine give the same checkpoint.

    Texts are seen ``passes`` times in all, or ``epochs`` times each where that is not 0, in batches
    of at most ``batch_tokens`` padded tokens. Every weight multiplies one loss of
    `asterisk.training.losses`, and 0 leaves it out: ``cosine_weight`` and ``l2_weight`` the
    sentences', ``token_weight`` the tokens', cut to a tenth once the share ``token_until`` of the
    run is done. ``pair_weight`` is InfoNCE's at ``temperature``: each ``pair_every``-th step reads
    ``pairs`` pairs instead of texts, which get the other losses as well.
    ``relation_weight`` is for the teacher's similarities to many texts, at
    ``relation_temperature``, once the share ``relation_after`` of the run is done;
    ``contrast_weight`` for finding the partner of a pair among them, at ``contrast_temperature``,
    after ``contrast_after``.

    The first pass takes the shards as they come, and with each, those that came ``replay``, one and
    a half times ``replay`` and so on before it: a student learns faster than a teacher speaks.

    Learning rates rise over ``warmup`` and fall to nothing over the last ``decay``, both shares of
    the run: ``matrix_learning_rate`` is Muon's, for the blocks' matrices; ``learning_rate``
    AdamW's, for vectors and positions, and for everything but the table where ``optimiser`` is
    "adamw"; ``table_learning_rate`` sparse Adam's, apart because rows are met rarely. The gradient
    of everything but the table is clipped to the norm ``clip``.

    Held-out texts are looked at every ``evaluate_every`` steps. After ``patience`` looks without a
    better cosine the run stops and its best state is kept; 0 never stops and keeps the last. A
    share ``validation`` of the training texts is set aside to be looked at instead, if not 0.

    ``fold_case`` trains one row for all spellings of a token, where the teacher cannot see case.
    ``amp`` is the precision of the student's matrix products, "bf16" or "off".
    """

    passes: int = 2_300_000
    batch_tokens: int = 2_048
    token_weight: float = 3.0
    token_until: float = 1.0
    matrix_learning_rate: float = 1e-3
    learning_rate: float = 1e-3
    table_learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.01
    decay: float = 0.75
    fold_case: bool = True
    seed: int = 0
    epochs: int = 0
    cosine_weight: float = 1.0
    l2_weight: float = 0.0
    pair_weight: float = 0.0
    pair_every: int = 4
    pairs: int = 32
    temperature: float = 0.05
    optimiser: Literal["muon", "adamw"] = "muon"
    clip: float = 1.0
    evaluate_every: int = 1_000
    patience: int = 0
    validation: float = 0.0
    amp: Literal["bf16", "off"] = "bf16"
    relation_weight: float = 2.0
    relation_after: float = 0.35
    relation_temperature: float = 0.05
    contrast_weight: float = 0.2
    contrast_after: float = 0.5
    contrast_temperature: float = 0.05
    replay: int = 40

    def __post_init__(self) -> None:
        for name in ("passes", "batch_tokens", "pair_every", "pairs", "evaluate_every"):
            _check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("epochs", "patience", "seed", "token_weight", "cosine_weight", "l2_weight"):
            _check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("pair_weight", "relation_weight", "contrast_weight", "weight_decay", "replay"):
            _check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("matrix_learning_rate", "learning_rate", "table_learning_rate"):
            _check(name, 0 < getattr(self, name) < 10, "above 0 and below 10")
        for name in ("temperature", "relation_temperature", "contrast_temperature", "clip"):
            _check(name, 0 < getattr(self, name) < float("inf"), "above 0")
        for name in ("warmup", "decay", "validation", "relation_after", "contrast_after"):
            _check(name, 0 <= getattr(self, name) < 1, "a share of 0 or more, below 1")
        _check("token_until", 0 < self.token_until <= 1, "a share above 0, at most 1")
        _check("amp", self.amp in AMP, "bf16 or off")
        _check("optimiser", self.optimiser in OPTIMISERS, "muon or adamw")
        to_teacher = (
            self.cosine_weight,
            self.l2_weight,
            self.token_weight,
            self.relation_weight,
            self.contrast_weight,
        )
        if not any(to_teacher) and not self.pair_weight:
            raise UsageError("every loss has the weight 0: nothing would be learnt")
        if self.patience and not any(to_teacher):
            raise UsageError("--patience watches the cosine to the teacher; InfoNCE alone has none")

    def token_weight_at(self, done: float) -> float:
        """Return the token loss's weight when ``done``, 0 to 1, of the run is behind it."""
        return self.token_weight * (0.1 if done >= self.token_until < 1 else 1.0)

    @property
    def settled(self) -> float:
        """The share of the run until which nothing depends on how long the run will be."""
        return min(
            1 - self.decay,
            self.token_until if self.token_weight else 1.0,
            self.relation_after if self.relation_weight else 1.0,
            self.contrast_after if self.contrast_weight else 1.0,
        )


_PLAIN = TrainingRecipe(relation_weight=0.0, contrast_weight=0.0)
PRESETS = {
    "asterisk": TrainingRecipe(),
    # Vujanic and Rueckstiess, LEAF (arXiv 2509.12539): nothing but the distance to the teacher's
    # normalised vector, in small batches.
    "leaf": replace(_PLAIN, cosine_weight=0.0, l2_weight=1.0, token_weight=0.0),
    # van den Oord et al. (arXiv 1807.03748), both ways as CLIP (arXiv 2103.00020).
    "infonce": replace(
        _PLAIN, cosine_weight=0.0, token_weight=0.0, pair_weight=1.0, pair_every=1, pairs=64
    ),
    # (1 - a) InfoNCE + a distillation, a = 0.5, as the original asterisk-embedding-model.
    "original": replace(
        _PLAIN,
        epochs=5,
        cosine_weight=0.5,
        token_weight=0.0,
        pair_weight=0.5,
        pair_every=1,
        pairs=32,
        temperature=0.05,
        optimiser="adamw",
        learning_rate=2e-4,
        table_learning_rate=2e-4,
        warmup=0.0,
        decay=0.0,
        patience=3,
        validation=0.1,
    ),
    "pairs": TrainingRecipe(pair_weight=0.1),
    # A student that begins as layers of its teacher has nothing to unlearn: small batches, and no
    # more than what the layers were trained for.
    "from-teacher": replace(
        _PLAIN,
        batch_tokens=1_024,
        token_weight=1.0,
        optimiser="adamw",
        learning_rate=6e-4,
        table_learning_rate=4e-4,
        replay=80,
        decay=0.9,
        fold_case=False,
    ),
}
