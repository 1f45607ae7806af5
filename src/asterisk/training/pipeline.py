"""From a corpus and a teacher's targets to a checkpoint: initialise, distil, describe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, UsageError
from asterisk.common.files import replacing_file
from asterisk.model.config import Dense, ModelConfig
from asterisk.model.encoder import Encoder, of_checkpoint
from asterisk.training import bag, card, student
from asterisk.training.bag import BagRecipe
from asterisk.training.batches import Material, open_material
from asterisk.training.distil import Distillation, texts_seen
from asterisk.training.distributed import Processes
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.student import Pruning
from asterisk.training.teachers.targets import SHARD, TargetsInfo
from asterisk.training.teachers.teacher import EncoderTeacher, find

Array = npt.NDArray[np.float32]
OnProgress = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What a run reads and writes."""

    corpus: Path
    targets: Path
    out: Path  # the checkpoint
    run: Path  # the working folder
    pruning: Pruning
    texts: int | None = None  # the first ones alone
    teacher: str | None = None  # instead of the name in the targets
    follow: bool = False  # wait for a teacher that is still working
    start: Path | None = None  # a checkpoint whose weights the run begins with
    from_teacher: bool = False  # begin with the teacher's weights
    bag: Literal["line", "only", "no"] = "line"  # the static baseline: for the curve, or alone
    evaluation: Path | None = None  # JSON of `asterisk-eval`, for the card
    licence: Path | None = None  # of the weights, by default of those the run begins with


def train(
    job: Job,
    recipe: TrainingRecipe,
    shape: dict[str, int],
    processes: Processes,
    on_progress: OnProgress = lambda stage, done, total, figures: None,
) -> None:
    """Carry out ``recipe`` and write ``job.out``; what ``job.run`` already holds is reused.

    ``shape`` are fields of `ModelConfig`. ``on_progress`` gets a stage, its progress and figures.
    """
    licence = None if job.licence is None else card.read_licence(job.licence)
    evaluation = None if job.evaluation is None else card.read_evaluation(job.evaluation)
    info, pruning = TargetsInfo.open(job.targets, job.teacher), job.pruning
    checkpoint = student.load_start(info, job.start, pruning, from_teacher=job.from_teacher)
    if info.own_tokens and job.bag != "no":
        raise UsageError(f"--bag {job.bag} is for students with GPT-2's tokenizer")
    material = open_material(
        job.corpus,
        job.targets,
        recipe,
        info=info,
        texts=job.texts,
        follow=job.follow,
        axes=pruning.width or (None if checkpoint is None else checkpoint.teacher_projection),
    )
    recipe, size = material.recipe, material.train.dimensions
    start = None
    if checkpoint is not None:
        start = student.prepare_start(checkpoint, pruning, material, shape)
        config = start.checkpoint.config
    else:  # with a projection where the student is wider than its vectors
        hidden = shape.get("hidden_size", size)
        sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": 4 * hidden} | shape
        config = ModelConfig(**sizes, dense=() if hidden == size else (Dense(size),))
    if processes.first:
        targets = asdict(info) | {"texts": len(material.train), "pairs": len(material.pairs)}
        del targets["teacher"]
        fingerprint = "" if start is None else start.checkpoint.fingerprint
        groups = {"recipe": asdict(recipe), "model": config.to_dict(), "targets": targets}
        save_run_config(job.run, recipe, groups | {"start": {"fingerprint": fingerprint}})

    def fit_bag(folder: Path) -> None:
        rows, texts = _initial_rows(job.run, material, config), material.train
        found = bag.fit(rows, texts, material.held_out, BagRecipe(), on_progress)
        bag.save(found, folder, texts.fold)

    if job.bag == "only":
        if processes.first:
            fit_bag(job.out)
        return
    model = Encoder(config)
    if texts_seen(job.run) is None and processes.first:
        if start is None:
            on_progress("initialise", 0, 1, {})
            model = _fresh_student(job.run, material, config)
        else:
            model = of_checkpoint(start.checkpoint)
    needs_line = job.bag == "line" and processes.first and bag.read_cosines(job.run / "bag") is None
    if needs_line and not job.follow:  # with --follow, shards are still missing
        fit_bag(job.run / "bag")
    run = Distillation(model, material, job.run, processes)
    run.finish(lambda seen, figures: on_progress("distil", seen, recipe.passes, figures))
    if needs_line and job.follow:
        fit_bag(job.run / "bag")
    if processes.first:
        card.write_checkpoint(run, job.out, start, evaluation=evaluation, licence=licence)


def _fresh_student(run: Path, material: Material, config: ModelConfig) -> Encoder:
    rows = _initial_rows(run, material, config)
    if not material.train.token_dimensions:
        # The mean of a token's texts says little of the token; a quick bag says more.
        first = material.train.first(student.MEAN_SHARDS * SHARD)
        rows = bag.fit(rows, first, material.held_out, BagRecipe(epochs=3)).rows
    return student.identity_student(config, rows, seed=material.recipe.seed)


def _initial_rows(run: Path, material: Material, config: ModelConfig) -> Array:
    """Return the mean target of each token, computed once a run."""
    path, texts = run / "rows.npy", material.train
    if not path.is_file():
        if texts.token_dimensions and material.projection is not None:
            teacher, projection = EncoderTeacher(find(material.info.teacher)), material.projection
            means = student.token_means(config, texts, teacher, projection)
        else:
            means = student.text_means(config, texts)
        run.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as staging, staging.open("wb") as file:
            np.save(file, means)
    rows: Array = np.load(path, allow_pickle=False)
    return rows


def save_run_config(run: Path, recipe: TrainingRecipe, config: dict[str, dict[str, Any]]) -> None:
    """Write ``run.json``: groups of settings; ArtifactError if ``run`` was begun with others.

    ``passes`` alone may be raised, until the learning rate falls or a loss changes its weight.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / "run.json"
    if path.exists():
        try:
            old = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise ArtifactError(f"{path} is not JSON") from None
        if not isinstance(old, dict) or not all(isinstance(group, dict) for group in old.values()):
            raise ArtifactError(f"{path} does not describe a run")
        for group in sorted(config.keys() & old.keys()):
            for name in sorted(config[group].keys() & old[group].keys()):
                was, now, advice = old[group][name], config[group][name], ""
                if was is None or now is None or was == now:
                    continue
                if name == "passes":
                    raised = isinstance(was, int) and now > was
                    if raised and (texts_seen(run) or 0) <= recipe.settled * was:
                        continue
                    advice = "; they can be raised until the decay, or a later loss, begins"
                raise ArtifactError(f"{run} was begun with {name} {was}, not {now}{advice}")
    with replacing_file(path) as staging:
        staging.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
