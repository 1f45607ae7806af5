"""A student that already knows, before its first step, what each token means on average."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from asterisk.model.config import ModelConfig
from asterisk.model.encoder import Encoder
from asterisk.tokenizer import ByteLevelBPE
from asterisk.training.batches import Targets
from asterisk.training.teachers.teacher import Teacher

ROW_RMS = 0.5
PRIOR = 2.0  # how many sightings a token's reading on its own is worth
SHARDS = 6  # of targets: enough sightings of the tokens that matter
Array = npt.NDArray[np.float32]


def student(config: ModelConfig, rows: Array, *, seed: int) -> Encoder:
    """Return an encoder whose blocks pass everything through and whose table is ``rows``.

    ``rows`` float32 [vocabulary, d], such as `token_means` gives, are scaled to one norm. The
    blocks' output maps start at zero; the last LayerNorm gives vectors the scale of ``rows``. Where
    the student is wider than d, rows are rotated into its width and its projection rotates back.
    """
    torch.manual_seed(seed)
    model = Encoder(config)
    given = torch.from_numpy(rows)
    scale = given.square().mean().sqrt().item()
    table = ROW_RMS * given / given.square().mean(1, keepdim=True).sqrt()
    with torch.no_grad():
        if config.dense:
            table = _widen(model, table)
        model.embeddings.word_embeddings.weight.copy_(table)
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
        for block in model.blocks:
            for inner in (block.attention.self.query, block.attention.self.key):
                torch.nn.init.normal_(inner.weight, std=config.hidden_size**-0.5)
            for output in (block.attention.output, block.output):
                output.dense.weight.zero_()
                output.dense.bias.zero_()
        last = model.blocks[-1].output.LayerNorm if model.blocks else model.embeddings.LayerNorm
        if isinstance(last, nn.LayerNorm):
            last.weight.fill_(scale)
    return model


def _widen(model: Encoder, table: torch.Tensor) -> torch.Tensor:
    projection = cast(nn.Linear, model.dense[0])
    axes = torch.empty_like(projection.weight)
    torch.nn.init.orthogonal_(axes)
    ratio = (model.config.hidden_size / model.config.embedding_size) ** 0.5
    projection.weight.copy_(axes / ratio)
    projection.bias.zero_()
    wide: torch.Tensor = table @ axes * ratio
    return wide


def token_means(
    config: ModelConfig,
    targets: Targets,
    teacher: Teacher,
    tokenizer: ByteLevelBPE,
    projection: Array,
) -> Array:
    """Return each token's mean target over the first shards, float32 [vocabulary, d].

    It leans on the teacher's reading of the token alone where the token is rare.
    """
    sums = PRIOR * _alone(config, teacher, tokenizer, projection)
    counts = np.full(config.vocab_size, PRIOR, "f4")
    for number in range(min(SHARDS, targets.size)):
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
    """Return the mean vector of the texts each token stands in, float32 [vocabulary, d].

    For a teacher that shows no tokens. A token that was not met has the mean of all.
    """
    sums = np.zeros((config.vocab_size, targets.dimensions), "f4")
    counts = np.zeros(config.vocab_size, "f4")
    for number in range(min(SHARDS, targets.size)):
        ids, lengths = targets.ids(number), targets.lengths(number)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        values = targets.sentences(number)[owners[order]]
        sums[ids[order][starts]] += np.add.reduceat(values, starts)
        counts[ids[order][starts]] += np.diff(starts, append=len(order))
    centre = sums.sum(0) / counts.sum()
    means: Array = (sums + PRIOR * centre) / (counts + PRIOR)[:, None]
    return means


def _alone(
    config: ModelConfig,
    teacher: Teacher,
    tokenizer: ByteLevelBPE,
    projection: Array,
) -> Array:
    texts = [
        tokenizer.token_bytes(token).decode("utf-8", "replace").strip() or "."
        for token in range(config.vocab_size)
    ]
    rows = np.empty((config.vocab_size, len(projection)), "f4")
    for start in range(0, len(texts), 512):
        for index, seen in enumerate(teacher.look(texts[start : start + 512]), start):
            real = seen.spans[:, 1] > seen.spans[:, 0]
            states = seen.states[real].mean(0) if real.any() else np.zeros(teacher.size)
            rows[index] = projection @ states
    return rows
