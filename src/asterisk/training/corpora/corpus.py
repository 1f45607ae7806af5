"""Texts to train on: one file of bytes and where each text ends in it, never loaded whole."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError

SCHEMA = 1
PARTS = ("train", "held-out")


@dataclass(frozen=True)
class Corpus(Sequence[str]):
    """n texts in shuffled order, read from a mapped file as they are asked for.

    ``ends`` int64 [n], where each text's UTF-8 ends; ``sources`` uint16 [n], an index into
    ``names``; ``pairs`` int64 [m, 2], texts that mean the same thing.
    """

    names: Sequence[str]
    ends: npt.NDArray[np.int64]
    sources: npt.NDArray[np.uint16]
    pairs: npt.NDArray[np.int64]
    blob: mmap.mmap | bytes

    @classmethod
    def open(cls, folder: Path, part: str = "train") -> Corpus:
        """Map one part of a corpus that `prepare` wrote; ArtifactError if it is not one."""
        names = describe(folder)["sources"]
        try:
            ends, sources, pairs = (
                np.load(folder / part / f"{field}.npy", mmap_mode="r", allow_pickle=False)
                for field in ("ends", "sources", "pairs")
            )
            with (folder / part / "texts.bin").open("rb") as file:
                size = file.seek(0, 2)
                blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (OSError, ValueError) as failure:
            raise ArtifactError(f"{folder / part} is not a corpus: {failure}") from None
        if len(ends) != len(sources) or (int(ends[-1]) if len(ends) else 0) != size:
            raise ArtifactError(f"{folder / part} is damaged: its index and its texts disagree")
        return cls(list(names), ends, sources, pairs, blob)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._text(index % len(self))

    def _text(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return str(self.blob[start : int(self.ends[index])], "utf-8")


def describe(folder: Path) -> dict[str, Any]:
    """Return what ``corpus.json`` says; ArtifactError if ``folder`` holds no corpus of ours."""
    try:
        told = json.loads((folder / "corpus.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise ArtifactError(f"{folder} is no corpus: run asterisk-data first") from None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise ArtifactError(f"{folder} is a corpus of another version")
    return told
