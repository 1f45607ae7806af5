"""The training loop, resumable at any moment."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.files import replacing_file
from asterisk.model.encoder import Encoder
from asterisk.training import curve, losses
from asterisk.training.agreement import cosine_to_teacher
from asterisk.training.batches import Batch, Targets, plan, plan_pairs
from asterisk.training.distributed import Processes
from asterisk.training.memory import Memory
from asterisk.training.optimisers import optimisers, set_rates, share_of_peak
from asterisk.training.recipe import TrainingRecipe

SAVE_EVERY = 180.0  # seconds
EVALUATED = 1_000  # held-out texts
Report = Callable[[int, dict[str, float]], None]


class Distillation:
    """One run in one folder: its model, its optimisers and where it stands.

    ``pairs`` int64 [m, 2] are texts of ``train`` that mean the same. Held-out texts are the first
    of ``held_out``, or its ``looked_at``. ArtifactError if the folder's state is damaged.
    """

    def __init__(
        self,
        model: Encoder,
        recipe: TrainingRecipe,
        train: Targets,
        held_out: Targets,
        run: Path,
        *,
        pairs: npt.NDArray[np.int64] | None = None,
        looked_at: range | None = None,
        processes: Processes | None = None,
    ) -> None:
        if train.token_dimensions not in (model.config.hidden_size, model.config.embedding_size):
            recipe = replace(recipe, token_weight=0.0)
        self.processes = processes or Processes()
        self.model, self.recipe, self.run = model.to(self.processes.device), recipe, run
        self.train, self.held_out = train, held_out
        self.pairs = np.empty((0, 2), "i8") if pairs is None else pairs
        self.looked_at = looked_at or range(min(EVALUATED, len(held_out)))
        self.optimisers = optimisers(model, recipe)
        self.table = model.embeddings.word_embeddings.weight
        self.dense = [p for p in model.parameters() if p is not self.table]
        self.step = self.seen = 0
        self.best, self.misses = -1.0, 0
        self.memory = Memory(train, self.pairs, recipe.seed)
        self.sums: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []
        self.state, self.kept = run / "state.pt", run / "best.pt"
        # The first process decides: it may have saved before another comes to look.
        self.fresh = not self.processes.agree(lambda: float(self.state.is_file()))
        if self.fresh:
            self.processes.spread(self.model)
        else:
            self._load()
        self.processes.wait()

    @property
    def finished(self) -> bool:
        """Tell whether nothing is left to do."""
        patience = self.recipe.patience
        return self.seen >= self.recipe.passes or 0 < patience <= self.misses

    def finish(self, report: Report = lambda seen, figures: None) -> None:
        """Train to the end of the recipe, saving on the way; raises nothing of its own."""
        if self.fresh:
            self._look()
            self._save()
            self.fresh = False
        saved = time.monotonic()
        steps = () if self.finished else itertools.islice(self._plan(), self.step, None)
        for indices, paired in steps:
            figures = self._advance(indices, paired=paired)
            if self.step % self.recipe.evaluate_every == 0 or self.finished:
                figures["held_out_cosine"] = self._look()
            report(self.seen, figures)
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
            if self.finished:
                self._save()
                break
        self.processes.wait()
        if self.recipe.patience and self.kept.is_file():
            self.model.load_state_dict(_read(self.kept, self.processes.device))

    def texts_read(self) -> int:
        """Return how many different texts the steps up to here have read."""
        read = np.zeros(len(self.train), bool)
        for indices, _ in itertools.islice(self._plan(), self.step):
            read[indices] = True
        return int(read.sum())

    def _plan(self) -> Iterator[tuple[list[int], bool]]:
        """Yield each step's texts, and whether they are pairs, for ever."""
        recipe = self.recipe
        texts = plan(self.train, recipe.batch_tokens, recipe.seed, recipe.replay)
        pairs = plan_pairs(self.pairs, recipe.pairs, recipe.seed)
        every = recipe.pair_every if recipe.pair_weight else 0
        for step in itertools.count(1):
            paired = bool(every) and step % every == 0
            yield next(pairs if paired else texts), paired

    def _advance(self, indices: list[int], *, paired: bool) -> dict[str, float]:
        done = self.seen / self.recipe.passes
        set_rates(self.optimisers, self.recipe, done)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        own = self.processes.share(indices, paired=paired)
        batch = self.train.gather(own or indices[:1], paired=paired).to(self.processes.device)
        figures = self._backward(batch, own or indices[:1], done, empty=not own)
        self.processes.average(self.dense, [self.table])
        torch.nn.utils.clip_grad_norm_(self.dense, self.recipe.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.seen += len(indices)
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.sums[f"{name} steps"] = self.sums.get(f"{name} steps", 0.0) + 1
        return figures

    def _backward(
        self, batch: Batch, indices: list[int], done: float, *, empty: bool
    ) -> dict[str, float]:
        """Leave the gradient of the weighed losses; return the losses, of this process's texts."""
        weights = losses.weights(self.recipe, done)
        bank = partners = None
        if weights["relation"] or weights["contrast"]:
            bank = self.memory.draw(self.step).to(self.processes.device)
        if weights["contrast"]:
            partners = self.memory.partners(indices, self.processes.device)
        found = losses.terms(
            self.model,
            batch,
            self.recipe,
            weights,
            processes=self.processes,
            bank=bank,
            partners=partners,
        )
        counts = torch.stack([term.counts for term in found.values()]) * (0.0 if empty else 1.0)
        scales = self.processes.scales(counts)
        parts = [
            weights[name] * (term.value * scale)
            for (name, term), scale in zip(found.items(), scales, strict=True)
        ]
        sum(parts[1:], parts[0]).backward()
        return {f"{name}_loss": term.value.item() for name, term in found.items()}

    def _look(self) -> float:
        """Note where the run stands on held-out texts; return their mean cosine."""
        self.model.eval()
        cosine = self.processes.agree(
            lambda: cosine_to_teacher(self.model, self.held_out, indices=self.looked_at)
        )
        self.model.train()
        names = [name for name in self.sums if not name.endswith(" steps")]
        row = {name: self.sums[name] / self.sums[f"{name} steps"] for name in names}
        rate = share_of_peak(self.recipe, self.seen / self.recipe.passes)
        row |= {"passes": self.seen, "learning_rate": rate, "held_out_cosine": cosine}
        self.curve.append(row)
        self.sums = {}
        if self.processes.first:
            curve.write(self.run / "curve.csv", self.curve)
        self.misses = 0 if cosine > self.best else self.misses + 1
        if cosine > self.best:
            self.best = cosine
            if self.recipe.patience and self.processes.first:
                with replacing_file(self.kept) as staging:
                    torch.save(self.model.state_dict(), staging)
        return cosine

    def _save(self) -> None:
        if not self.processes.first:
            return
        state = {
            "step": self.step,
            "seen": self.seen,
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "best": self.best,
            "misses": self.misses,
            "sums": self.sums,
        }
        with replacing_file(self.state) as staging:
            torch.save(state, staging)

    def _load(self) -> None:
        state = _read(self.state, self.processes.device)
        try:
            self.step, self.seen = state["step"], state["seen"]
            self.model.load_state_dict(state["model"])
            for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(values)
        except (KeyError, TypeError, ValueError, RuntimeError) as failure:
            raise ArtifactError(f"{self.state} is of another model: {one_line(failure)}") from None
        self.best, self.misses = state.get("best", -1.0), state.get("misses", 0)
        self.sums = state.get("sums", {})
        # What a run that was cut noted after its last save will be noted again.
        rows = curve.read(self.run / "curve.csv")
        self.curve = [row for row in rows if row["passes"] <= self.seen]


def state_of(run: Path) -> int | None:
    """Return how many texts the run in a folder has passed; None where it has not begun."""
    state = run / "state.pt"
    if not state.is_file():
        return None
    seen: int = _read(state, torch.device("cpu"), mapped=True)["seen"]
    return seen


def _read(path: Path, device: torch.device, *, mapped: bool = False) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(
            path, weights_only=True, map_location=device, mmap=mapped
        )
    except Exception as failure:
        # Whatever a file that is no checkpoint makes the unpickler raise.
        raise ArtifactError(f"{path} cannot be read: {one_line(failure)}") from None
    return found
