"""Hashed character trigrams, each with a random vector; a text is their mean.

What any model should beat, at a speed that few reach: a floor for the table, and an example of a
peer with all that one can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from asterisk.bench.plan import Row
from asterisk.common import texts

ROWS, SIZE = 1 << 14, 256
COMPARED = 256  # texts that its fidelity is measured over
Ids = npt.NDArray[np.intp]
Vectors = npt.NDArray[np.float32]

ROW = Row(
    name="trigrams",
    title="hashed trigrams, numpy",
    recipe="fp16",
    opener="asterisk_trigrams:open",
    path="",  # the folder that `prepare` wrote, once it is known
    modules=("numpy",),  # imported first, so that importing and loading are timed apart
    distributions=("numpy",),  # what has to be installed for it
    size=0,  # of the folder, without the reference
    peer=True,
    model="hashed trigrams",  # what it runs instead of the checkpoint that is measured
)


def prepare(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - it has a model of its own
    """Write the table of vectors, and the vectors of the first texts as they are in float32."""
    table = np.random.default_rng(0).standard_normal((ROWS, SIZE), np.float32)
    np.save(folder / "table.npy", table.astype(np.float16))
    np.save(folder / "reference.npy", Trigrams(table).encode(first_texts()))


def first_texts() -> list[str]:
    """Return the texts that a reference is of: the first that ship."""
    return [text.text for text in texts.load()[:COMPARED]]


def open(folder: Path, threads: int) -> Trigrams:  # noqa: ARG001 - it has no use for more
    """Open what `prepare` wrote; called in the process that is measured."""
    return Trigrams(np.load(folder / "table.npy", mmap_mode="r"))


class Trigrams:
    """Text to vectors. Only ``encode`` is needed; with the other two, the JSON has their times."""

    def __init__(self, table: npt.NDArray[Any]) -> None:
        self.table = table

    def tokenize(self, text: str) -> Ids:
        """Return the rows of a text's trigrams, at least one."""
        data = f" {text.casefold()} ".encode()
        starts = range(max(len(data) - 2, 1))
        return np.array([crc32(data[start : start + 3]) % ROWS for start in starts])

    def embed_ids(self, ids: Ids) -> Vectors:
        """Return the mean of rows, float32 [d], not normalised."""
        return self.table[ids].astype(np.float32).mean(0)

    def encode(self, texts: str | Sequence[str]) -> Vectors:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if not isinstance(texts, str):
            return np.stack([self.encode(text) for text in texts])
        vector = self.embed_ids(self.tokenize(texts))
        return vector / np.linalg.norm(vector)
