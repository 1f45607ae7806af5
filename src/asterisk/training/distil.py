"""The training loop: sentence and token distillation, resumable at any moment."""

from __future__ import annotations

import csv
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from asterisk.files import replacing_file
from asterisk.model.encoder import Encoder, mean_pool
from asterisk.training.batches import Batch, Targets, plan
from asterisk.training.recipe import TrainingRecipe

SAVE_EVERY = 180.0  # seconds
EVALUATE_EVERY = 500  # steps
SENTENCE_ONLY = 0.8
CURVE = ("texts", "sentence_loss", "token_loss", "held_out_cosine")
Report = Callable[[int, dict[str, float]], None]


def losses(model: Encoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the sentence loss, 1 - cosine, and the token loss, error over power; scalars."""
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16):
        states = model.tokens(batch.ids, batch.mask)
    states = states.float()
    pooled = mean_pool(states, batch.mask)
    sentence = 1 - functional.cosine_similarity(pooled, batch.sentences).mean()
    wanted = batch.tokens[batch.asked]
    token = (states[batch.asked] - wanted).square().mean() / wanted.square().mean()
    return sentence, token


@torch.inference_mode()
def cosine_to_teacher(model: Encoder, targets: Targets, skip: int | None = None) -> float:
    """Return the mean cosine to the teacher's vectors, bypassing block ``skip`` if given."""
    return float(functional.cosine_similarity(*vectors(model, targets, skip)).mean())


@torch.inference_mode()
def vectors(model: Encoder, targets: Targets, skip: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's vectors of every text, float32 [n, d] each."""
    ours, theirs = [], []
    order = targets.lengths.argsort(kind="stable")
    for start in range(0, len(order), 64):
        batch = targets.gather(order[start : start + 64].tolist())
        x = model.embeddings(batch.ids)
        bias = (~batch.mask)[:, None, None, :] * torch.finfo(x.dtype).min
        for index, block in enumerate(model.blocks):
            x = x if index == skip else block(x, bias)
        ours.append(mean_pool(x, batch.mask))
        theirs.append(batch.sentences)
    return torch.cat(ours), torch.cat(theirs)


class Distillation:
    """One run in one folder: its model, its optimisers and where it stands."""

    def __init__(
        self, model: Encoder, recipe: TrainingRecipe, train: Targets, held_out: Targets, run: Path
    ) -> None:
        self.model, self.recipe, self.run = model, recipe, run
        self.train, self.held_out = train, held_out
        table = model.embeddings.word_embeddings
        table.sparse = True  # a step touches a few hundred of 50,259 rows
        rest = [p for p in model.parameters() if p is not table.weight]
        matrices: dict[str, Any] = {"params": [p for p in rest if p.ndim > 1]}
        scales: dict[str, Any] = {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0}
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [matrices, scales],
                lr=recipe.learning_rate,
                betas=(0.9, 0.98),
                weight_decay=recipe.weight_decay,
            ),
            torch.optim.SparseAdam([table.weight], lr=recipe.table_learning_rate),
        ]
        self.dense = rest
        self.step = self.seen = 0
        self.state = run / "state.pt"
        if self.state.is_file():
            self._load()

    def finish(self, report: Report = lambda seen, figures: None) -> None:
        """Train to the end of the recipe, saving on the way; raises nothing of its own."""
        batches = plan(self.train, self.recipe.batch_tokens, self.recipe.seed)
        saved = time.monotonic()
        for indices in itertools.islice(batches, self.step, None):
            if self.seen >= self.recipe.passes:
                break
            figures = self._advance(self.train.gather(indices))
            if self.step % EVALUATE_EVERY == 0:
                figures["held_out_cosine"] = self._evaluate()
                self._log(figures)
            report(self.seen, figures)
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()

    def _advance(self, batch: Batch) -> dict[str, float]:
        done = self.seen / self.recipe.passes
        rate = min(done / self.recipe.warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * done))
        rates = (self.recipe.learning_rate, self.recipe.table_learning_rate)
        for optimiser, peak in zip(self.optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = max(rate, 1e-3) * peak
            optimiser.zero_grad(set_to_none=True)
        sentence, token = losses(self.model, batch)
        weight = self.recipe.token_weight * (1.0 if done < SENTENCE_ONLY else 0.1)
        (sentence + weight * token).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.dense, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.seen += len(batch)
        return {"sentence_loss": sentence.item(), "token_loss": token.item()}

    def _evaluate(self) -> float:
        self.model.eval()
        cosine = cosine_to_teacher(self.model, self.held_out)
        self.model.train()
        return cosine

    def _log(self, figures: dict[str, float]) -> None:
        path = self.run / "curve.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, CURVE)
            if fresh:
                writer.writeheader()
            writer.writerow({"texts": self.seen} | figures)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seen": self.seen,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        with replacing_file(self.state) as staging:
            torch.save(state, staging)

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(self.state, weights_only=True)
        self.step, self.seen = state["step"], state["seen"]
        self.model.load_state_dict(state["model"])
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
