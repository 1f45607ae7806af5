"""A student before its first step: fresh and passing everything through, or made of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from numpy.linalg import norm
from torch import nn

from asterisk.common.errors import ArtifactError, UsageError
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.model.config import Dense, ModelConfig
from asterisk.model.encoder import Encoder
from asterisk.tokenizer import gpt2
from asterisk.training.batches import Material, Targets
from asterisk.training.teachers.targets import OWN_TOKENS, TargetsInfo
from asterisk.training.teachers.teacher import EncoderTeacher, find

ROW_RMS = 0.5
PRIOR = 2.0  # how many sightings a token's reading on its own is worth
MEAN_SHARDS = 6  # of targets: enough sightings of the tokens that matter
Array = npt.NDArray[np.float32]


def identity_student(config: ModelConfig, rows: Array, *, seed: int) -> Encoder:
    """Return an encoder whose blocks pass everything through and whose table is ``rows``.

    If it is wider than ``rows``, float32 [vocabulary, d], they are rotated, and rotated back.
    """
    torch.manual_seed(seed)
    model = Encoder(config)
    given = torch.from_numpy(rows)
    scale = given.square().mean().sqrt().item()
    table = ROW_RMS * given / given.square().mean(1, keepdim=True).sqrt()
    with torch.no_grad():
        if config.dense:
            projection = cast(nn.Linear, model.dense[0])
            axes = torch.empty_like(projection.weight)
            nn.init.orthogonal_(axes)
            ratio = (config.hidden_size / config.embedding_size) ** 0.5
            projection.weight.copy_(axes / ratio)
            projection.bias.zero_()
            table = table @ axes * ratio
        embeddings = model.embeddings
        embeddings.word_embeddings.weight.copy_(table)
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        for block in model.blocks:
            for inner in (block.attention.self.query, block.attention.self.key):
                nn.init.normal_(inner.weight, std=config.hidden_size**-0.5)
            for output in (block.attention.output, block.output):
                output.dense.weight.zero_()
                output.dense.bias.zero_()
        last = model.blocks[-1].output.LayerNorm if model.blocks else embeddings.LayerNorm
        if isinstance(last, nn.LayerNorm):
            last.weight.fill_(scale)
    return model


def token_means(
    config: ModelConfig, targets: Targets, teacher: EncoderTeacher, projection: Array
) -> Array:
    """Return each token's mean target over the first shards, float32 [vocabulary, d]."""
    spellings = map(gpt2().token_bytes, range(config.vocab_size))
    texts = [spelling.decode("utf-8", "replace").strip() or "." for spelling in spellings]
    sums = np.empty((config.vocab_size, len(projection)), "f4")
    for start in range(0, len(texts), 512):
        for index, reading in enumerate(teacher.read(texts[start : start + 512]), start):
            real = reading.spans[:, 1] > reading.spans[:, 0]
            state = reading.states[real].mean(0) if real.any() else np.zeros(teacher.size)
            sums[index] = PRIOR * (projection @ state)
    counts = np.full(config.vocab_size, PRIOR, "f4")
    for number in range(min(MEAN_SHARDS, targets.shards)):
        shard, ids = targets.shard(number), targets.ids(number)
        if shard.tokens is None or shard.scales is None:
            break
        scales = shard.scales[: len(ids)]
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        values = np.asarray(shard.tokens, "f4")[order] * scales[order][:, None]
        sums[ids[order][starts]] += np.add.reduceat(values, starts)
        counts[ids[order][starts]] += np.add.reduceat((scales[order] > 0) * 1.0, starts)
    means: Array = sums / counts[:, None]
    # What the teacher cannot read at all (a lone control character) starts as the average token.
    means[np.abs(means).max(1) < 1e-6] = means.mean(0)
    return means


def text_means(config: ModelConfig, targets: Targets) -> Array:
    """Return the mean vector of the texts each token occurs in, float32 [vocabulary, d]."""
    sums = np.zeros((config.vocab_size, targets.dimensions), "f4")
    counts = np.zeros(config.vocab_size, "f4")
    for number in range(min(MEAN_SHARDS, targets.shards)):
        ids, lengths = targets.ids(number), targets.lengths(number)
        texts = np.repeat(np.arange(len(lengths)), lengths)
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        values = targets.sentences(number)[texts[order]]
        sums[ids[order][starts]] += np.add.reduceat(values, starts)
        counts[ids[order][starts]] += np.diff(starts, append=len(order))
    centre = sums.sum(0) / counts.sum()
    means: Array = (sums + PRIOR * centre) / (counts + PRIOR)[:, None]
    return means


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a student takes of a checkpoint; None means all of it."""

    layers: tuple[int, ...] | None = None
    width: int | None = None  # of the teacher's axes

    def describe(self, text: str) -> str:
        """Return words for what is taken of the model called ``text``."""
        if self.layers is not None:
            *first, last = map(str, self.layers)
            layers = f"layers {', '.join(first)} and {last}" if first else f"layer {last}"
            text = f"{layers} of {text}"
        return text if self.width is None else f"{text} along {self.width} of the teacher's axes"


@dataclass(frozen=True, slots=True)
class Start:
    """A student's first weights and what they are."""

    checkpoint: Checkpoint
    origin: str
    distilled: bool  # the origin was a student, too


def load_start(
    info: TargetsInfo, path: Path | None, pruning: Pruning, *, from_teacher: bool
) -> Checkpoint | None:
    """Read the checkpoint that a run begins with, if any; ArtifactError if it does not fit."""
    if not info.own_tokens:
        if from_teacher:
            raise UsageError(f"--from-teacher needs targets {OWN_TOKENS}")
        if pruning != Pruning():
            raise UsageError(f"--width and --layers with a list need targets {OWN_TOKENS}")
        return None if path is None else load(path)
    if path is None and not from_teacher:
        raise UsageError("targets in the teacher's tokens need --from-teacher or --from")
    teacher = load(find(info.teacher))
    if teacher.fingerprint != (info.identity or {}).get("fingerprint"):
        raise ArtifactError(f"the targets were made by another teacher than {info.teacher}")
    start = teacher if path is None else load(path)
    if start.tokenizer.identity() != teacher.tokenizer.identity():
        raise ArtifactError(f"{path} has another tokenizer than {info.teacher}")
    return start


def prepare_start(
    checkpoint: Checkpoint, pruning: Pruning, material: Material, shape: dict[str, int]
) -> Start:
    """Return the student made of ``checkpoint`` for ``material``; UsageError if it does not fit."""
    info, projection, dimensions = material.info, material.projection, material.train.dimensions
    student, name = checkpoint, checkpoint.name
    own = checkpoint.teacher_projection
    if not info.own_tokens:
        if projection is None or own is None or not np.array_equal(own, projection.astype("f4")):
            raise UsageError(f"{name} was trained in another space than that of these targets")
    else:
        if pruning.layers is not None:
            student = with_layers(student, pruning.layers)
        if pruning.width is not None and projection is not None:
            if own is not None:
                raise UsageError(f"--width: {name} is along fewer axes already")
            inner = student.config.intermediate_size * pruning.width // student.config.hidden_size
            student = narrowed(student, projection, shape.get("intermediate_size", inner))
        elif student.config.embedding_size != dimensions:
            student = widened(student, dimensions, material.recipe.seed)
        identity = info.identity or {}  # which `load_start` has checked
        longest = min(student.config.max_positions, int(identity.get("longest", info.limit)))
        config = replace(student.config, max_seq_length=longest)
        spaces = (str(identity["fingerprint"]),) if projection is None else ()
        student = replace(student, config=config, compatible_with=spaces)
        student = replace(student, teacher_projection=projection)
    sizes = student.config.to_dict()
    for field, value in shape.items():
        if sizes[field] != value:
            raise UsageError(f"{field} {value}: what the student begins with has {sizes[field]}")
    distilled = own is not None or bool(checkpoint.compatible_with)
    return Start(student, pruning.describe(name if distilled else info.teacher), distilled)


def with_layers(checkpoint: Checkpoint, layers: Sequence[int]) -> Checkpoint:
    """Return only the blocks ``layers``, from 0, in that order; UsageError for a wrong one."""
    name, blocks = checkpoint.name, checkpoint.config.num_layers
    for layer in layers:
        if not 0 <= layer < blocks:
            raise UsageError(f"--layers {layer}: {name} has {blocks} layers, 0 to {blocks - 1}")
    if len(set(layers)) < len(layers):
        raise UsageError("--layers names a layer twice")
    # As DistilBERT takes every other layer of its teacher (arXiv 1910.01108, section 3).
    old, start = checkpoint.tensors, "encoder.layer."
    tensors = {key: value for key, value in old.items() if not key.startswith(start)}
    for number, layer in enumerate(layers):
        for key in [key for key in old if key.startswith(f"{start}{layer}.")]:
            tensors[key.replace(f".{layer}.", f".{number}.", 1)] = old[key]
    config = replace(checkpoint.config, num_layers=len(layers))
    return replace(checkpoint, config=config, tensors=tensors, compatible_with=())


def narrowed(checkpoint: Checkpoint, axes: Array, intermediate: int) -> Checkpoint:
    """Return ``checkpoint`` projected to ``axes``, float32 [width, hidden]: it is to be trained on.

    Of each block the heads and channels stay that write most. UsageError for a wrong shape.
    """
    config, width = checkpoint.config, len(axes)
    if not config.bert_shaped or config.dense:
        raise UsageError(f"--width: {checkpoint.name} is pre-norm or has maps after pooling")
    if width % config.head_size:
        raise UsageError(f"--width {width} is no multiple of the head size, {config.head_size}")
    if intermediate > config.intermediate_size:
        raise UsageError(f"--intermediate {intermediate}: there are {config.intermediate_size}")
    heads, old, new = width // config.head_size, checkpoint.tensors, {}
    for name in old:
        if "_embeddings." in name:
            new[name] = old[name] @ axes.T
        elif name.endswith("LayerNorm.weight"):
            new[name] = np.full(width, old[name].mean(), "f4")
        elif name.endswith("LayerNorm.bias"):
            new[name] = axes @ old[name]
    for layer in range(config.num_layers):
        block = f"encoder.layer.{layer}."
        attention, inner = f"{block}attention.self.", f"{block}intermediate.dense"
        attended, outer = f"{block}attention.output.dense", f"{block}output.dense"
        value, out = old[f"{attention}value.weight"], old[f"{attended}.weight"]
        by_head = np.arange(len(value)).reshape(-1, config.head_size)
        strength = [norm(out[:, rows]) * norm(value[rows]) for rows in by_head]
        own_rows = by_head[np.sort(np.argsort(-np.array(strength), kind="stable")[:heads])].ravel()
        written = norm(old[f"{inner}.weight"], axis=1) * norm(old[f"{outer}.weight"], axis=0)
        channels = np.sort(np.argsort(-written, kind="stable")[:intermediate])
        reading = [(f"{attention}{name}", own_rows) for name in ("query", "key", "value")]
        for name, rows in (*reading, (inner, channels)):
            new[f"{name}.weight"] = old[f"{name}.weight"][rows] @ axes.T
            new[f"{name}.bias"] = old[f"{name}.bias"][rows]
        for name, inputs in ((attended, own_rows), (outer, channels)):
            new[f"{name}.weight"] = axes @ old[f"{name}.weight"][:, inputs]
            new[f"{name}.bias"] = axes @ old[f"{name}.bias"]
    config = replace(config, hidden_size=width, num_heads=heads, intermediate_size=intermediate)
    tensors = {name: np.ascontiguousarray(value, "f4") for name, value in new.items()}
    return replace(checkpoint, config=config, tensors=tensors, compatible_with=())


def widened(checkpoint: Checkpoint, size: int, seed: int) -> Checkpoint:
    """Return ``checkpoint`` with a map after pooling to ``size``, a teacher's width (LEAF)."""
    config = checkpoint.config
    hidden, name = config.embedding_size, f"dense.{len(config.dense)}"
    weight = np.random.default_rng(seed).normal(0, hidden**-0.5, (size, hidden)).astype("f4")
    added = {f"{name}.weight": weight, f"{name}.bias": np.zeros(size, "f4")}
    config = replace(config, dense=(*config.dense, Dense(size)))
    tensors = {**checkpoint.tensors, **added}
    return replace(checkpoint, config=config, tensors=tensors, compatible_with=())
