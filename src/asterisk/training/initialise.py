"""A student that already knows, before its first step, what each token means on average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from asterisk.model.config import ModelConfig
from asterisk.model.encoder import Encoder
from asterisk.tokenizer import Tokenizer
from asterisk.training.targets import Shard
from asterisk.training.teacher import Teacher

ROW_RMS = 0.5
PRIOR = 2.0  # how many sightings a token's reading on its own is worth


def student(
    config: ModelConfig,
    shards: Sequence[Shard],
    teacher: Teacher,
    tokenizer: Tokenizer,
    projection: npt.NDArray[np.float32],
    *,
    seed: int,
) -> Encoder:
    """Return an encoder whose blocks pass everything through and whose table is the teacher's.

    A row starts at its token's mean target over the corpus, leaning on the teacher's reading of
    the token alone where it is rare. The blocks' output maps start at zero; the last LayerNorm
    gives vectors the scale of the targets.
    """
    torch.manual_seed(seed)
    model = Encoder(config)
    rows = torch.from_numpy(_token_means(config, shards, teacher, tokenizer, projection))
    scale = rows.square().mean().sqrt().item()
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(
            ROW_RMS * rows / rows.square().mean(1, keepdim=True).sqrt()
        )
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
        for block in model.blocks:
            for inner in (block.attention.self.query, block.attention.self.key):
                torch.nn.init.normal_(inner.weight, std=config.hidden_size**-0.5)
            for output in (block.attention.output, block.output):
                output.dense.weight.zero_()
                output.dense.bias.zero_()
        model.blocks[-1].output.LayerNorm.weight.fill_(scale)
    return model


def _token_means(
    config: ModelConfig,
    shards: Sequence[Shard],
    teacher: Teacher,
    tokenizer: Tokenizer,
    projection: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    sums = PRIOR * _alone(config, teacher, tokenizer, projection)
    counts = np.full(config.vocab_size, PRIOR, "f4")
    for shard in shards:
        ids = np.asarray(shard.ids)
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        values = np.asarray(shard.tokens, "f4")[order] * shard.scales[order][:, None]
        sums[ids[order][starts]] += np.add.reduceat(values, starts)
        counts[ids[order][starts]] += np.add.reduceat((shard.scales[order] > 0) * 1.0, starts)
    means: npt.NDArray[np.float32] = sums / counts[:, None]
    # What the teacher cannot read at all (a lone control character) starts as the average token.
    means[np.abs(means).max(1) < 1e-6] = means.mean(0)
    return means


def _alone(
    config: ModelConfig,
    teacher: Teacher,
    tokenizer: Tokenizer,
    projection: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    texts = [
        tokenizer.token_bytes(token).decode("utf-8", "replace").strip() or "."
        for token in range(config.vocab_size)
    ]
    rows = np.empty((config.vocab_size, len(projection)), "f4")
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), 512):
        batch = order[start : start + 512]
        seen = teacher.look([texts[index] for index in batch])
        real = (seen.spans[..., 1] > seen.spans[..., 0]).float()[..., None]
        mean = (seen.states * real).sum(1) / real.sum(1).clamp(min=1)
        rows[batch] = (mean @ torch.from_numpy(projection).T).numpy()
    return rows
