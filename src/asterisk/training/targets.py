"""What the student is asked for, made once by the teacher and read from mapped files.

Each student token is aligned by characters to the teacher's word pieces and asked for the mean of
their last hidden states; each text is asked for the teacher's sentence vector. Both are rotated
into the student's space by one fixed projection. Token targets are kept in 8 bits with a scale
each: 256 bytes a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from asterisk.files import replacing_folder
from asterisk.tokenizer import Tokenizer
from asterisk.tokenizer.offsets import encode_with_offsets
from asterisk.training.teacher import Teacher

SHARD = 10_000
FIELDS = ("ids", "ends", "sentences", "tokens", "scales")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shard:
    """Targets of n texts with N tokens in all, d dimensions.

    ``ids`` uint16 [N]; ``ends`` int64 [n], where each text's tokens end; ``sentences``
    float16 [n, d]; ``tokens`` int8 [N, d] times ``scales`` float32 [N]; a scale of 0 marks a token
    without a target.
    """

    ids: npt.NDArray[np.uint16]
    ends: npt.NDArray[np.int64]
    sentences: npt.NDArray[np.float16]
    tokens: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> Shard:
        """Map a shard that `build` wrote."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS})


def fit_projection(teacher: Teacher, texts: Sequence[str], size: int) -> npt.NDArray[np.float32]:
    """Return the uncentred principal axes of the teacher's vectors, float32 [size, teacher size].

    Uncentred, so that cosines survive; ordered by variance, so that vectors can be truncated.
    """
    second = torch.zeros(teacher.size, teacher.size, dtype=torch.float64)
    for batch in _batches(texts):
        vectors = teacher.look([texts[i] for i in batch]).sentences.double()
        second += vectors.T @ vectors
    _, axes = torch.linalg.eigh(second)
    rows = axes.flip(1)[:, :size].T
    signs = torch.sign(rows.gather(1, rows.abs().argmax(1, keepdim=True)))
    projection: npt.NDArray[np.float32] = (rows * signs).float().numpy()
    return projection


def build(
    folder: Path,
    texts: Sequence[str],
    teacher: Teacher,
    tokenizer: Tokenizer,
    projection: npt.NDArray[np.float32],
    *,
    limit: int,
    progress: Progress = lambda done, total: None,
) -> list[Shard]:
    """Make every missing shard of ``texts`` under ``folder`` and map them all.

    A shard appears whole or not at all, so interrupted work goes on where it stopped.
    """
    shards = []
    for number, start in enumerate(range(0, len(texts), SHARD)):
        target = folder / f"shard-{number:04d}"
        if not target.is_dir():
            part = texts[start : start + SHARD]
            fields = _targets(part, teacher, tokenizer, torch.from_numpy(projection), limit)
            with replacing_folder(target, lambda _: False) as staging:
                for name, values in fields.items():
                    np.save(staging / f"{name}.npy", values)
        shards.append(Shard.open(target))
        progress(min(start + SHARD, len(texts)), len(texts))
    return shards


def _targets(
    texts: Sequence[str],
    teacher: Teacher,
    tokenizer: Tokenizer,
    projection: torch.Tensor,
    limit: int,
) -> dict[str, npt.NDArray[Any]]:
    size = len(projection)
    encoded = [encode_with_offsets(tokenizer, text) for text in texts]
    ids = [np.array(tokens[:limit], "u2") for tokens, _ in encoded]
    ends = np.cumsum([len(tokens) for tokens in ids])
    sentences = np.empty((len(texts), size), "f2")
    tokens = np.empty((int(ends[-1]), size), "i1")
    scales = np.empty(int(ends[-1]), "f4")
    for batch in _batches(texts):
        seen = teacher.look([texts[i] for i in batch])
        vectors = torch.nn.functional.normalize(seen.sentences @ projection.T, dim=-1)
        sentences[batch] = vectors.numpy()
        states = seen.states @ projection.T
        for row, index in enumerate(batch):
            count = len(ids[index])
            spans = np.array(encoded[index][1][:count])
            mixed, found = _align(spans, seen.spans[row].numpy(), len(texts[index]))
            wanted = (torch.from_numpy(mixed) @ states[row]).numpy()
            scale = np.abs(wanted).max(1) / 127
            scale[~found] = 0
            where = slice(ends[index] - count, ends[index])
            tokens[where] = (
                np.rint(wanted / np.where(scale > 0, scale, 1)[:, None]) * found[:, None]
            )
            scales[where] = scale
    return {
        "ids": np.concatenate(ids),
        "ends": ends,
        "sentences": sentences,
        "tokens": tokens,
        "scales": scales,
    }


def _align(
    ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], length: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return mixing weights [ours, theirs] by shared characters, and which rows have any."""
    piece_at = np.full(length, -1)
    for piece, (start, end) in enumerate(theirs):
        piece_at[start:end] = piece
    weights = np.zeros((len(ours), len(theirs)), "f4")
    for row, (start, end) in enumerate(ours):
        pieces = piece_at[start:end]
        np.add.at(weights[row], pieces[pieces >= 0], 1)
    totals = weights.sum(1, keepdims=True)
    return weights / np.maximum(totals, 1), totals[:, 0] > 0


def _batches(texts: Sequence[str], size: int = 64) -> list[list[int]]:
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    return [order[start : start + size] for start in range(0, len(order), size)]
