"""From a corpus and a teacher's targets to a checkpoint: initialise, distil, draw, describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asterisk.common.errors import UsageError
from asterisk.common.files import replacing_file
from asterisk.model.checkpoint import Array
from asterisk.model.config import Dense, ModelConfig
from asterisk.model.encoder import Encoder, of_checkpoint
from asterisk.tokenizer import gpt2
from asterisk.training import bag, initialise, static
from asterisk.training.bag import Bag, BagRecipe
from asterisk.training.claim import claim
from asterisk.training.distil import Distillation, state_of
from asterisk.training.distributed import Processes
from asterisk.training.material import Material, Told, open_material
from asterisk.training.outcome import evaluation, read_licence, write
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.start import OWN_TOKENS, Begun, Pruning, begin, open_start
from asterisk.training.teachers.teacher import Teacher, find

Stage = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What a run reads and writes.

    ``corpus``, ``targets``, ``texts``, ``teacher`` and ``follow`` are `open_material`'s. ``out`` is
    the checkpoint to write, ``run`` the working folder. ``start`` is a checkpoint whose weights the
    run begins with instead of what the teacher makes of each token, ``from_teacher`` the same with
    the teacher's own, and ``pruning`` what it takes of them. ``bag`` says whether the static
    baseline is trained too, for its "line" in the curve, "only" it, or "no". ``evaluation`` is JSON
    that `asterisk-eval` wrote, for the card; ``licence`` the text that goes with the weights, None
    being that of what the run begins with.
    """

    corpus: Path
    targets: Path
    out: Path
    run: Path
    texts: int | None = None
    teacher: str | None = None
    follow: bool = False
    start: Path | None = None
    from_teacher: bool = False
    pruning: Pruning = field(default_factory=Pruning)
    bag: Literal["line", "only", "no"] = "line"
    bag_recipe: BagRecipe = field(default_factory=BagRecipe)
    evaluation: Path | None = None
    licence: Path | None = None


def train(
    job: Job,
    recipe: TrainingRecipe,
    shape: dict[str, int],
    processes: Processes,
    stage: Stage = lambda name, done, total, figures: None,
) -> None:
    """Carry out ``recipe`` and write ``job.out``; what ``job.run`` already holds is reused.

    ``shape`` are `ModelConfig`'s fields other than the default's. ``stage`` is told the name of
    each stage, how far it is and its figures.
    """
    licence = None if job.licence is None else read_licence(job.licence)
    evaluated = None if job.evaluation is None else evaluation(job.evaluation)
    told = Told.open(job.targets, job.teacher)
    start = open_start(told, job.start, from_teacher=job.from_teacher)
    if told.own_tokens and job.bag != "no":
        raise UsageError(f"--bag {job.bag} is for students with GPT-2's tokenizer")
    if not told.own_tokens and not job.pruning.whole:
        raise UsageError(f"--width and --layers with a list need targets {OWN_TOKENS}")
    material = open_material(
        job.corpus,
        job.targets,
        recipe,
        told=told,
        texts=job.texts,
        follow=job.follow,
        axes=job.pruning.width or (None if start is None else start.teacher_projection),
    )
    recipe = material.recipe
    begun = None
    config = configure(shape, material.train.dimensions)
    if start is not None:
        begun = begin(start, job.pruning, material, shape)
        config = begun.checkpoint.config
    if processes.first:
        claim(job.run, recipe, _choices(material, config, begun))
    if job.bag == "only":
        if processes.first:
            found = _bag(job, _start(job, material, config), material, stage)
            static.save(found, job.out, material.train.fold)
        return
    known = state_of(job.run) is not None or not processes.first
    model = Encoder(config)
    if not known:
        model = (
            _begin(job, material, config, stage)
            if begun is None
            else of_checkpoint(begun.checkpoint)
        )
    if job.bag == "line" and not job.follow and processes.first:
        _line(job, material, config, stage)
    run = Distillation(
        model,
        recipe,
        material.train,
        material.held_out,
        job.run,
        pairs=material.pairs,
        looked_at=material.looked_at,
        processes=processes,
    )
    run.finish(lambda seen, figures: stage("distil", seen, recipe.passes, figures))
    if processes.first:
        if job.bag == "line":
            _line(job, material, config, stage)
        write(run, material, job.out, job.run, evaluated, begun=begun, licence=licence)


def configure(shape: dict[str, int], size: int) -> ModelConfig:
    """Return the student's configuration: a projection where it is wider than its vectors."""
    hidden = shape.get("hidden_size", size)
    known: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": 4 * hidden} | shape
    return ModelConfig(**known, dense=() if hidden == size else (Dense(size),))


def _choices(
    material: Material, config: ModelConfig, begun: Begun | None
) -> dict[str, dict[str, Any]]:
    told = {name: value for name, value in asdict(material.told).items() if name != "teacher"}
    return {
        "recipe": asdict(material.recipe),
        "model": config.to_dict(),
        "targets": told | {"texts": len(material.train), "pairs": len(material.pairs)},
        "start": {"fingerprint": "" if begun is None else begun.checkpoint.fingerprint},
    }


def _begin(job: Job, material: Material, config: ModelConfig, stage: Stage) -> Encoder:
    stage("initialise", 0, 1, {})
    rows = _start(job, material, config)
    if not material.train.show_tokens:
        # The mean of a token's texts says little of the token; a quick bag says more.
        some = material.train.first(initialise.SHARDS)
        rows = bag.fit(rows, some, material.apart, BagRecipe(epochs=3)).rows
    return initialise.student(config, rows, seed=material.recipe.seed)


def _start(job: Job, material: Material, config: ModelConfig) -> Array:
    """Return the mean target of each token, made once a run."""
    path = job.run / "rows.npy"
    if path.is_file():
        found: Array = np.load(path, allow_pickle=False)
        return found
    if material.train.show_tokens and material.projection is not None:
        teacher, tokenizer = Teacher(find(material.told.teacher)), gpt2()
        rows = initialise.token_means(
            config, material.train, teacher, tokenizer, material.projection
        )
    else:
        rows = initialise.text_means(config, material.train)
    job.run.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as staging, staging.open("wb") as file:
        np.save(file, rows)
    return rows


def _bag(job: Job, start: Array, material: Material, stage: Stage) -> Bag:
    def told(epoch: int, cosine: float) -> None:
        stage("bag", epoch, job.bag_recipe.epochs, {"held_out_cosine": cosine})

    return bag.fit(start, material.train, material.apart, job.bag_recipe, told)


def _line(job: Job, material: Material, config: ModelConfig, stage: Stage) -> None:
    if static.facts_of(job.run / "bag") is None:
        found = _bag(job, _start(job, material, config), material, stage)
        static.save(found, job.run / "bag", material.train.fold)
