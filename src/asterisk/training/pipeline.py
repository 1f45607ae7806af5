"""From raw text to a checkpoint: sample, ask the teacher, initialise, distil, describe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from asterisk.errors import ArtifactError
from asterisk.files import replacing_file
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig
from asterisk.model.encoder import Encoder
from asterisk.tokenizer import BUILTIN, Tokenizer
from asterisk.training import corpus, initialise, targets
from asterisk.training.batches import Targets
from asterisk.training.card import Facts, write_card
from asterisk.training.distil import Distillation, cosine_to_teacher, vectors
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.teacher import Teacher, find

PROJECTION_TEXTS = 10_000
Stage = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """Where a run reads and writes."""

    data: Path
    run: Path
    name: str = "asterisk-256"


def train(job: Job, recipe: TrainingRecipe, config: ModelConfig, stage: Stage) -> Checkpoint:
    """Carry out ``recipe`` and return its checkpoint; what ``job.run`` already holds is reused.

    ``stage`` is told the name of each stage, how far it is and its figures.
    """
    _claim(job, recipe)
    tokenizer = Tokenizer.open(BUILTIN)
    teacher = Teacher(find(recipe.teacher))
    texts = corpus.sample(job.data, recipe.texts, seed=recipe.seed)
    apart = corpus.sample_held_out(job.data, recipe.held_out)
    projection = _projection(job.run / "projection.npy", teacher, texts, config.embedding_size)

    def ask(folder: str, some: list[str]) -> Targets:
        shards = targets.build(
            job.run / folder,
            some,
            teacher,
            tokenizer,
            projection,
            limit=recipe.limit,
            progress=lambda done, total: stage("teacher", done, total, {}),
        )
        return Targets(shards)

    held_out, asked = ask("held-out", apart), ask("train", texts)
    model = initialise.student(
        config, asked.shards, teacher, tokenizer, projection, seed=recipe.seed
    )
    start = cosine_to_teacher(model, held_out)
    run = Distillation(model, recipe, asked, held_out, job.run)
    run.finish(lambda seen, figures: stage("distil", seen, recipe.passes, figures))
    facts = _facts(model.eval(), held_out, start)
    tensors = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    card = write_card(job.name, recipe, [path.name for path in corpus.files(job.data)], facts)
    return Checkpoint(job.name, config, tensors, projection, card)


def _claim(job: Job, recipe: TrainingRecipe) -> None:
    """Make ``job.run`` this run's own; ArtifactError if another recipe or data began there."""
    sizes = {path.name: path.stat().st_size for path in corpus.files(job.data)}
    ours = json.dumps({"recipe": asdict(recipe), "data": sizes}, indent=1) + "\n"
    job.run.mkdir(parents=True, exist_ok=True)
    claim = job.run / "run.json"
    if not claim.exists():
        with replacing_file(claim) as staging:
            staging.write_text(ours, "utf-8")
    elif claim.read_text("utf-8") != ours:
        raise ArtifactError(f"{job.run} was begun with another recipe or other data")


def _projection(
    path: Path, teacher: Teacher, texts: list[str], size: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    if not path.is_file():
        with replacing_file(path) as staging, staging.open("wb") as file:
            np.save(file, targets.fit_projection(teacher, texts[:PROJECTION_TEXTS], size))
    loaded: np.ndarray[tuple[int, int], np.dtype[np.float32]] = np.load(path)
    return loaded


def _facts(model: Encoder, held_out: Targets, start: float) -> Facts:
    whole, theirs = vectors(model, held_out)
    bypassed = []
    for index in range(model.config.num_layers):
        without, _ = vectors(model, held_out, skip=index)
        bypassed.append(
            (
                float(functional.cosine_similarity(whole, without).mean()),
                float(functional.cosine_similarity(without, theirs).mean()),
            )
        )
    with torch.inference_mode():
        cosine = float(functional.cosine_similarity(whole, theirs).mean())
    return Facts(len(held_out), start, cosine, bypassed)
