"""The training loop, which can be interrupted and resumed at any moment."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.files import replacing_file
from asterisk.model.encoder import Encoder, pool
from asterisk.training import losses
from asterisk.training.batches import Material, Targets, plan, plan_pairs
from asterisk.training.distributed import Processes
from asterisk.training.recipe import TrainingRecipe

SAVE_EVERY = 180.0  # seconds
_BY_TEXT = {"cosine": losses.cosine, "l2": losses.l2, "token": losses.token}
LOSSES = tuple(f"{name}_loss" for name in (*_BY_TEXT, "relation", "contrast", "pair"))
CURVE_FIELDS = ("passes", "learning_rate", *LOSSES, "held_out_cosine")
_OLD_FIELDS = {"texts": "passes", "sentence_loss": "cosine_loss"}
Curve = list[dict[str, float]]


class Distillation:
    """One run in one folder: its model, its optimisers and its progress.

    ArtifactError if the folder's state is damaged.
    """

    def __init__(
        self, model: Encoder, material: Material, folder: Path, processes: Processes
    ) -> None:
        recipe, tokens = material.recipe, material.train.token_dimensions
        if tokens not in (model.config.hidden_size, model.config.embedding_size):
            recipe = replace(recipe, token_weight=0.0)
        self.material, self.recipe, self.processes = material, recipe, processes
        self.model, self.folder = model.to(processes.device), folder
        self.optimisers = optimisers(model, recipe)
        self.table = model.embeddings.word_embeddings.weight
        self.dense = [p for p in model.parameters() if p is not self.table]
        self.bank = losses.MemoryBank(material.train, material.pairs, recipe.seed)
        self.step = self.seen = 0
        self.best, self.misses = -1.0, 0
        self.sums: dict[str, float] = {}  # of losses since the last evaluation, and "… steps"
        self.curve: Curve = []
        self.state_path, self.best_path = folder / "state.pt", folder / "best.pt"
        # The first process decides: it may have saved before another comes to look.
        self.fresh = not processes.agree(self.state_path.is_file)
        if self.fresh:
            processes.broadcast(self.model)
        else:
            self._load()
        processes.wait()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        patience = self.recipe.patience
        return self.seen >= self.recipe.passes or 0 < patience <= self.misses

    def finish(
        self, on_progress: Callable[[int, dict[str, float]], None] = lambda seen, figures: None
    ) -> None:
        """Train to the end of the recipe, saving on the way."""
        if self.fresh:
            self._evaluate()
            self._save()
            self.fresh = False
        saved = time.monotonic()
        steps = itertools.islice(self._plan(), self.step, None)
        while not self.finished:
            indices, paired = next(steps)
            figures = self._advance(indices, paired=paired)
            if self.step % self.recipe.evaluate_every == 0 or self.finished:
                figures["held_out_cosine"] = self._evaluate()
            on_progress(self.seen, figures)
            if self.finished or time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self.processes.wait()
        if self.recipe.patience and self.best_path.is_file():
            self.model.load_state_dict(_read(self.best_path, self.processes.device))

    def texts_read(self) -> int:
        """Return how many different texts the steps so far have read."""
        read = np.zeros(len(self.material.train), bool)
        for indices, _ in itertools.islice(self._plan(), self.step):
            read[indices] = True
        return int(read.sum())

    def _plan(self) -> Iterator[tuple[list[int], bool]]:
        """Yield each step's texts, and whether they are pairs, for ever."""
        recipe, material = self.recipe, self.material
        texts = plan(material.train, recipe.batch_tokens, recipe.seed, recipe.replay)
        pairs = plan_pairs(material.pairs, recipe.pairs, recipe.seed)
        every = recipe.pair_every if recipe.pair_weight else 0
        for step in itertools.count(1):
            paired = bool(every) and step % every == 0
            yield next(pairs if paired else texts), paired

    def _advance(self, indices: list[int], *, paired: bool) -> dict[str, float]:
        """Make one step; return the losses of this process's texts."""
        rate = self.recipe.share_of_peak(self.seen / self.recipe.passes)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["peak"]
            optimiser.zero_grad(set_to_none=True)
        own = self.processes.share(indices, paired=paired)
        figures = self._backward(own or indices[:1], paired=paired, empty=not own)
        self.processes.average(self.dense, [self.table])
        torch.nn.utils.clip_grad_norm_(self.dense, self.recipe.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.seen += len(indices)
        for name, value in figures.items():
            for key, amount in ((name, value), (f"{name} steps", 1.0)):
                self.sums[key] = self.sums.get(key, 0.0) + amount
        return figures

    def _backward(self, indices: list[int], *, paired: bool, empty: bool) -> dict[str, float]:
        """Leave the gradient of the weighted losses; return the losses."""
        recipe, processes, bank = self.recipe, self.processes, self.bank
        weights = recipe.weights(self.seen / recipe.passes)
        batch = self.material.train.gather(indices, paired=paired).to(processes.device)
        reading = losses.read(self.model, batch, recipe.amp)
        terms = {name: loss(reading, batch) for name, loss in _BY_TEXT.items() if weights[name]}
        if weights["relation"] or weights["contrast"]:
            negatives = bank.sample(self.step).to(processes.device)
        if weights["relation"]:
            temperature = recipe.relation_temperature
            terms["relation"] = losses.relation(reading, batch, negatives, processes, temperature)
        if weights["contrast"]:
            terms["contrast"] = losses.contrast(
                reading,
                batch,
                negatives,
                bank.partners(indices, processes.device),
                processes=processes,
                temperature=recipe.contrast_temperature,
            )
        if weights["pair"] and batch.paired:
            terms["pair"] = losses.infonce(reading, processes, recipe.temperature)
        counts = torch.stack([term.counts for term in terms.values()]) * (0.0 if empty else 1.0)
        scaled = zip(terms.items(), processes.scales(counts), strict=True)
        parts = [weights[name] * (term.value * scale) for (name, term), scale in scaled]
        sum(parts[1:], parts[0]).backward()
        return {f"{name}_loss": term.value.item() for name, term in terms.items()}

    def _evaluate(self) -> float:
        """Add a row to the curve; return the mean held-out cosine."""
        texts, evaluated = self.material.validation, self.material.evaluated
        self.model.eval()
        cosine = self.processes.agree(lambda: cosine_to_teacher(self.model, texts, evaluated))
        self.model.train()
        sums, self.sums = self.sums, {}
        row = {name: sums[name] / sums[f"{name} steps"] for name in LOSSES if name in sums}
        rate = self.recipe.share_of_peak(self.seen / self.recipe.passes)
        row |= {"passes": self.seen, "learning_rate": rate, "held_out_cosine": cosine}
        self.curve.append(row)
        if self.processes.first:
            write_curve(self.folder / "curve.csv", self.curve)
        self.misses += 1
        if cosine > self.best:
            self.best, self.misses = cosine, 0
            if self.recipe.patience:
                self._write(self.best_path, self.model.state_dict())
        return cosine

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        if self.processes.first:
            with replacing_file(path) as staging:
                torch.save(state, staging)

    def _save(self) -> None:
        state = {name: getattr(self, name) for name in ("step", "seen", "best", "misses", "sums")}
        optimisers = [optimiser.state_dict() for optimiser in self.optimisers]
        state |= {"model": self.model.state_dict(), "optimisers": optimisers}
        self._write(self.state_path, state)

    def _load(self) -> None:
        state = _read(self.state_path, self.processes.device)
        try:
            self.step, self.seen = state["step"], state["seen"]
            self.model.load_state_dict(state["model"])
            for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(values)
        except (KeyError, TypeError, ValueError, RuntimeError) as failure:
            reason = one_line(failure)
            raise ArtifactError(f"{self.state_path} is of another model: {reason}") from None
        self.best, self.misses = state.get("best", -1.0), state.get("misses", 0)
        self.sums = state.get("sums", {})
        # Rows that an interrupted run wrote after its last save will be written again.
        rows = read_curve(self.folder / "curve.csv")
        self.curve = [row for row in rows if row["passes"] <= self.seen]


def texts_seen(folder: Path) -> int | None:
    """Return how many texts the run in ``folder`` has passed; None if it has not begun."""
    path = folder / "state.pt"
    return _read(path, "cpu", mmap=True)["seen"] if path.is_file() else None


def _read(path: Path, device: torch.device | str, *, mmap: bool = False) -> Any:
    try:
        return torch.load(path, weights_only=True, map_location=device, mmap=mmap)
    except Exception as failure:
        # Whatever a file that is no checkpoint makes the unpickler raise.
        raise ArtifactError(f"{path} cannot be read: {one_line(failure)}") from None


def optimisers(model: Encoder, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices, AdamW for the rest, sparse Adam for the table.

    Muon (K. Jordan, 2024) took a tenth fewer steps than AdamW to any loss.
    """
    table = model.embeddings.word_embeddings
    table.sparse = True  # a step touches a few hundred of 50,259 rows
    muon = recipe.optimiser == "muon"
    matrices = [p for p in model.encoder.parameters() if muon and p.ndim == 2]
    excluded = {id(table.weight), *map(id, matrices)}
    rest = [p for p in model.parameters() if id(p) not in excluded]
    wide: dict[str, Any] = {"params": [p for p in rest if p.ndim > 1]}
    narrow: dict[str, Any] = {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0}
    optim, rate, decay = torch.optim, recipe.learning_rate, recipe.weight_decay
    found: list[torch.optim.Optimizer] = [
        optim.AdamW([wide, narrow], lr=rate, betas=(0.9, 0.98), weight_decay=decay),
        optim.SparseAdam([table.weight], lr=recipe.table_learning_rate),
    ]
    if matrices:
        rate, rms = recipe.matrix_learning_rate, "match_rms_adamw"
        found.append(optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn=rms))
    for optimiser in found:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return found


def cosine_to_teacher(model: Encoder, targets: Targets, indices: range | None = None) -> float:
    """Return the mean cosine to the teacher's vectors of the texts at ``indices``, or of all."""
    student, teacher = student_and_teacher(model, targets, indices=indices)
    return float(functional.cosine_similarity(student, teacher).mean())


@torch.inference_mode()
def student_and_teacher(
    model: Encoder, targets: Targets, *, skip: int | None = None, indices: range | None = None
) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's vectors of texts by length, float32 [n, d] each.

    The texts are those at ``indices``, or all. Block ``skip`` is bypassed, if given.
    """
    student, teacher = [], []
    device = next(model.parameters()).device
    chosen = range(len(targets)) if indices is None else indices
    order = targets.all_lengths()[chosen.start : chosen.stop].argsort(kind="stable") + chosen.start
    for start in range(0, len(order), 32):
        batch = targets.gather(order[start : start + 32].tolist()).to(device)
        x = model.embeddings(batch.ids)
        bias = (~batch.mask)[:, None, None, :] * torch.finfo(x.dtype).min
        for index, block in enumerate(model.blocks):
            x = x if index == skip else block(x, bias)
        student.append(model.project(pool(x, batch.mask, model.config.pooling)))
        teacher.append(batch.sentences)
    return torch.cat(student), torch.cat(teacher)


def read_curve(path: Path) -> Curve:
    """Return the rows of a curve, none if there is no file; ArtifactError if it is not a curve."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {_OLD_FIELDS.get(name, name): float(x) for name, x in row.items() if name and x}
                for row in csv.DictReader(file)
            ]
    except (ValueError, csv.Error):
        raise ArtifactError(f"{path} is not a curve") from None
    return [{name: row[name] for name in CURVE_FIELDS if name in row} for row in rows]


def write_curve(path: Path, rows: Curve) -> None:
    """Write the rows of a curve as CSV, all or none."""
    with replacing_file(path) as staging, staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE_FIELDS)
        writer.writeheader()
        writer.writerows({**row, "passes": int(row["passes"])} for row in rows)
