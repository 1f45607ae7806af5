"""What a student is before its first step, where it begins with weights that there are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asterisk.common.errors import ArtifactError, UsageError
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.training.material import Material, Told
from asterisk.training.pruning import narrowed, widened, with_layers
from asterisk.training.teachers.teacher import find

OWN_TOKENS = "in the teacher's tokens: asterisk-teacher --tokenizer teacher"


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a student takes of the checkpoint that it begins with.

    Its blocks ``layers`` alone, counted from 0, None being all; along ``width`` of the teacher's
    axes, None being its own width.
    """

    layers: tuple[int, ...] | None = None
    width: int | None = None

    @property
    def whole(self) -> bool:
        """Tell whether all of it is taken."""
        return self.layers is None and self.width is None

    def describe(self, name: str) -> str:
        """Return words for what is taken of the model called ``name``."""
        told = name
        if self.layers is not None:
            *some, last = map(str, self.layers)
            told = f"layers {', '.join(some)} and {last}" if some else f"layer {last}"
            told = f"{told} of {name}"
        return told if self.width is None else f"{told} along {self.width} of the teacher's axes"


@dataclass(frozen=True, slots=True)
class Begun:
    """A student before its first step: its weights, and words for where they are from.

    ``student`` tells whether they were trained to be another model's before.
    """

    checkpoint: Checkpoint
    origin: str
    student: bool


def open_start(told: Told, path: Path | None, *, from_teacher: bool) -> Checkpoint | None:
    """Read the checkpoint that a run begins with: at ``path`` or, ``from_teacher``, the teacher.

    None for neither. ArtifactError where the teacher is not the one that made the targets, or the
    two have not one tokenizer; UsageError for what targets of this kind do not allow.
    """
    if not told.own_tokens:
        if from_teacher:
            raise UsageError(f"--from-teacher needs targets {OWN_TOKENS}")
        return None if path is None else load(path)
    if path is None and not from_teacher:
        raise UsageError("targets in the teacher's tokens need --from-teacher or --from")
    teacher = load(find(told.teacher))
    identity = told.identity or {}
    if teacher.fingerprint != identity.get("fingerprint"):
        raise ArtifactError(f"the targets were made by another teacher than {told.teacher}")
    start = teacher if path is None else load(path)
    if start.tokenizer.identity() != teacher.tokenizer.identity():
        raise ArtifactError(f"{path} has another tokenizer than {told.teacher}")
    return start


def begin(start: Checkpoint, pruning: Pruning, material: Material, shape: dict[str, int]) -> Begun:
    """Return what a student begins as: what ``pruning`` takes of ``start``, in the targets' space.

    ``shape`` are `ModelConfig`'s fields that were asked for. UsageError for what does not fit.
    """
    axes, begun = material.projection, start
    if not material.told.own_tokens:
        known = start.teacher_projection
        if axes is None or known is None or not np.array_equal(known, axes.astype("f4")):
            raise UsageError(
                f"{start.name} was trained in another space than that of these targets"
            )
    else:
        if pruning.layers is not None:
            begun = with_layers(begun, pruning.layers)
        if pruning.width is not None and axes is not None:
            if start.teacher_projection is not None:
                raise UsageError(f"--width: {start.name} is along fewer axes already")
            inner = begun.config.intermediate_size * pruning.width // begun.config.hidden_size
            inner = shape.get("intermediate_size", inner)
            begun = narrowed(begun, axes, inner)
        elif begun.config.embedding_size != material.train.dimensions:
            begun = widened(begun, material.train.dimensions, material.recipe.seed)
        longest = min(begun.config.max_positions, material.told.longest)
        begun = replace(
            begun,
            config=replace(begun.config, max_seq_length=longest),
            compatible_with=material.told.spaces if axes is None else (),
            teacher_projection=axes,
        )
    told = begun.config.to_dict()
    for name, value in shape.items():
        if told[name] != value:
            raise UsageError(f"{name} {value}: what the student begins with has {told[name]}")
    student = start.teacher_projection is not None or bool(start.compatible_with)
    name = start.name if student else material.told.teacher
    return Begun(begun, pruning.describe(name), student)
