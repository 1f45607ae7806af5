"""A student made of layers that somebody trained: the teacher's own, or another checkpoint's.

As *DistilBERT* (arXiv 1910.01108, section 3) takes every other layer of its teacher, and LEAF
(arXiv 2509.12539) begins with a pretrained encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import UsageError
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import Dense
from asterisk.training.batches import Targets
from asterisk.training.teachers.targets import principal_axes

TOKENS = 0.1  # what token states count for beside sentence vectors, where axes are found
SHARDS = 2
Array = npt.NDArray[np.float32]
_EMBEDDINGS = tuple(
    f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
)


def with_layers(checkpoint: Checkpoint, layers: Sequence[int]) -> Checkpoint:
    """Return ``checkpoint`` with those of its blocks alone, counted from 0, in that order.

    UsageError for a block that it does not have, or that is named twice.
    """
    blocks = checkpoint.config.num_layers
    for layer in layers:
        if not 0 <= layer < blocks:
            raise UsageError(
                f"--layers {layer}: {checkpoint.name} has {blocks} layers, 0 to {blocks - 1}"
            )
    if len(set(layers)) < len(layers):
        raise UsageError("--layers names a layer twice")
    kept = {
        name: value
        for name, value in checkpoint.tensors.items()
        if not name.startswith("encoder.layer.")
    }
    for new, old in enumerate(layers):
        start = f"encoder.layer.{old}."
        for name, value in checkpoint.tensors.items():
            if name.startswith(start):
                kept[f"encoder.layer.{new}.{name.removeprefix(start)}"] = value
    config = replace(checkpoint.config, num_layers=len(layers))
    return replace(checkpoint, config=config, tensors=kept, compatible_with=())


def axes(targets: Targets, size: int) -> Array:
    """Return the first ``size`` uncentred principal axes of the teacher, float32 [size, D].

    Of its sentence vectors and, a tenth, its token states, in the first shards.
    """
    sentences = np.zeros((targets.dimensions, targets.dimensions))
    tokens = np.zeros_like(sentences)
    for number in range(min(SHARDS, targets.size)):
        some = targets.sentences(number).astype("f8")
        sentences += some.T @ some
        states = targets.states(number).astype("f4")
        tokens += states.T @ states
    both = sentences / sentences.trace() + TOKENS * tokens / tokens.trace()
    return principal_axes(both, size)


def narrowed(checkpoint: Checkpoint, axes: Array, intermediate: int) -> Checkpoint:
    """Return ``checkpoint`` seen along ``axes``, float32 [width, hidden]: it is to be trained on.

    Every map's inputs and outputs are projected; of each block, the heads and inner channels stay
    that write most. UsageError for a shape that does not allow it.
    """
    config, width = checkpoint.config, len(axes)
    if not config.bert_shaped or config.dense:
        raise UsageError(f"--width: {checkpoint.name} is pre-norm or has maps after pooling")
    if width % config.head_size:
        raise UsageError(f"--width {width} is no multiple of the head size, {config.head_size}")
    if intermediate > config.intermediate_size:
        raise UsageError(f"--intermediate {intermediate}: there are {config.intermediate_size}")
    old = checkpoint.tensors
    new = {name: old[name] @ axes.T for name in _EMBEDDINGS}
    _narrow_norm(old, new, "embeddings.", axes)
    for layer in range(config.num_layers):
        start = f"encoder.layer.{layer}."
        kept = _strongest_heads(old, start, config.head_size, width // config.head_size)
        for name in ("query", "key", "value"):
            place = f"{start}attention.self.{name}."
            new[f"{place}weight"] = old[f"{place}weight"][kept] @ axes.T
            new[f"{place}bias"] = old[f"{place}bias"][kept]
        wide, back = f"{start}intermediate.dense.", f"{start}output.dense."
        strength = np.linalg.norm(old[f"{wide}weight"], axis=1) * np.linalg.norm(
            old[f"{back}weight"], axis=0
        )
        channels = np.sort(np.argsort(-strength, kind="stable")[:intermediate])
        new[f"{wide}weight"] = old[f"{wide}weight"][channels] @ axes.T
        new[f"{wide}bias"] = old[f"{wide}bias"][channels]
        for place, inputs in ((f"{start}attention.output.dense.", kept), (back, channels)):
            new[f"{place}weight"] = axes @ old[f"{place}weight"][:, inputs]
            new[f"{place}bias"] = axes @ old[f"{place}bias"]
        for place in (f"{start}attention.output.", f"{start}output."):
            _narrow_norm(old, new, place, axes)
    return replace(
        checkpoint,
        config=replace(
            config,
            hidden_size=width,
            num_heads=width // config.head_size,
            intermediate_size=intermediate,
        ),
        tensors={name: np.ascontiguousarray(value, "f4") for name, value in new.items()},
        compatible_with=(),
    )


def widened(checkpoint: Checkpoint, size: int, seed: int) -> Checkpoint:
    """Return ``checkpoint`` with a map after pooling to ``size``, a teacher's width (LEAF)."""
    hidden = checkpoint.config.embedding_size
    random = np.random.default_rng(seed)
    number = len(checkpoint.config.dense)
    map_ = random.normal(0, hidden**-0.5, (size, hidden)).astype("f4")
    return replace(
        checkpoint,
        config=replace(checkpoint.config, dense=(*checkpoint.config.dense, Dense(size))),
        tensors={
            **checkpoint.tensors,
            f"dense.{number}.weight": map_,
            f"dense.{number}.bias": np.zeros(size, "f4"),
        },
        compatible_with=(),
    )


def _narrow_norm(old: Mapping[str, Array], new: dict[str, Array], place: str, axes: Array) -> None:
    weight, bias = old[f"{place}LayerNorm.weight"], old[f"{place}LayerNorm.bias"]
    new[f"{place}LayerNorm.weight"] = np.full(len(axes), weight.mean(), "f4")
    new[f"{place}LayerNorm.bias"] = axes @ bias


def _strongest_heads(
    tensors: Mapping[str, Array], start: str, size: int, count: int
) -> npt.NDArray[np.int64]:
    """Return the places of the ``count`` heads whose values and outputs weigh most."""
    value = tensors[f"{start}attention.self.value.weight"]
    output = tensors[f"{start}attention.output.dense.weight"]
    heads = np.arange(len(value)).reshape(-1, size)
    strength = [np.linalg.norm(output[:, rows]) * np.linalg.norm(value[rows]) for rows in heads]
    kept = np.sort(np.argsort(-np.array(strength), kind="stable")[:count])
    found: npt.NDArray[np.int64] = heads[kept].ravel()
    return found
