"""Every choice that a training run makes, and the presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from asterisk.common.errors import UsageError

LOWEST_RATE = 1e-3  # of a learning rate's peak


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """A distillation run; two runs of one recipe on one machine give the same checkpoint."""

    passes: int = 2_300_000  # texts read in all
    batch_tokens: int = 2_048  # at most, padding included
    token_weight: float = 3.0
    token_until: float = 1.0  # share of the run, after which the weight falls to a tenth
    matrix_learning_rate: float = 1e-3  # Muon's
    learning_rate: float = 1e-3  # AdamW's
    table_learning_rate: float = 2e-3  # sparse Adam's
    weight_decay: float = 0.01
    warmup: float = 0.01  # share of the run over which the rates rise
    decay: float = 0.75  # last share of the run, over which they fall
    fold_case: bool = True  # one row for all spellings, if the teacher cannot see case
    seed: int = 0
    epochs: int = 0  # how often every text is read, instead of `passes`, if not 0
    cosine_weight: float = 1.0
    l2_weight: float = 0.0
    pair_weight: float = 0.0  # InfoNCE's
    pair_every: int = 4  # steps
    pairs: int = 32  # in such a step
    temperature: float = 0.05
    optimiser: Literal["muon", "adamw"] = "muon"
    clip: float = 1.0  # norm of the gradient of everything but the table
    evaluate_every: int = 1_000  # steps
    patience: int = 0  # evaluations without a better cosine, after which the best state is kept
    validation: float = 0.0  # share of the training texts to evaluate instead of held-out ones
    amp: Literal["bf16", "off"] = "bf16"
    relation_weight: float = 2.0
    relation_after: float = 0.35
    relation_temperature: float = 0.05
    contrast_weight: float = 0.2
    contrast_after: float = 0.5
    contrast_temperature: float = 0.05
    replay: int = 40  # the first pass repeats the shard that came so many before, see `plan`

    def __post_init__(self) -> None:
        def check(names: str, accept: Callable[[Any], bool], requirement: str) -> None:
            for name in names.split():
                if not accept(getattr(self, name)):
                    raise UsageError(f"--{name.replace('_', '-')} must be {requirement}")

        check("passes batch_tokens pair_every pairs evaluate_every", lambda n: n >= 1, "at least 1")
        check("epochs patience seed replay weight_decay", lambda n: n >= 0, "0 or more")
        losses = "token_weight cosine_weight l2_weight relation_weight contrast_weight"
        check(f"{losses} pair_weight", lambda weight: weight >= 0, "0 or more")
        rates = "matrix_learning_rate learning_rate table_learning_rate"
        check(rates, lambda rate: 0 < rate < 10, "above 0 and below 10")
        temperatures = "temperature relation_temperature contrast_temperature"
        check(f"{temperatures} clip", lambda x: 0 < x < float("inf"), "above 0")
        shares = "warmup decay validation relation_after contrast_after"
        check(shares, lambda share: 0 <= share < 1, "a share of 0 or more, below 1")
        check("token_until", lambda share: 0 < share <= 1, "a share above 0, at most 1")
        check("amp", ("bf16", "off").__contains__, "bf16 or off")
        check("optimiser", ("muon", "adamw").__contains__, "muon or adamw")
        to_teacher = any(getattr(self, name) for name in losses.split())
        if not to_teacher and not self.pair_weight:
            raise UsageError("every loss has the weight 0: nothing would be learnt")
        if self.patience and not to_teacher:
            raise UsageError("--patience watches the cosine to the teacher; InfoNCE alone has none")

    def weights(self, progress: float) -> dict[str, float]:
        """Return each loss's weight at ``progress``, 0 to 1, of the run."""
        token_cut = 0.1 if progress >= self.token_until < 1 else 1.0
        return {
            "cosine": self.cosine_weight,
            "l2": self.l2_weight,
            "token": self.token_weight * token_cut,
            "relation": self.relation_weight * (progress >= self.relation_after),
            "contrast": self.contrast_weight * (progress >= self.contrast_after),
            "pair": self.pair_weight,
        }

    def share_of_peak(self, progress: float) -> float:
        """Return every learning rate as a share of its peak: up, flat, down."""
        # Flat in between, so that a run can be made longer until its decay begins.
        up = progress / self.warmup if self.warmup else 1.0
        down = (1 - progress) / self.decay if self.decay else 1.0
        return max(min(up, 1.0, down), LOWEST_RATE)

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
