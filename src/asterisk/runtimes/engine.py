"""What an adapter provides: one native session, token ids in, one vector out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError

Vector = npt.NDArray[np.float32]


class Engine(ABC):
    """One session of a native engine, single-threaded inside, called by one thread at a time.

    A runtime gives it only ids that it has checked: 1 to ``max_positions`` of them, each within
    the vocabulary.
    """

    format: ClassVar[str]

    @abstractmethod
    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""

    def close(self) -> None:  # noqa: B027 - most engines have nothing to release
        """Release the session; it is not used again."""


class ArtifactEngine(Engine):
    """An engine that reads an artifact: what the entry points of `asterisk.runtimes` name."""

    @classmethod
    @abstractmethod
    def open(cls, artifact: Artifact, lanes: int) -> list[Self]:
        """Open ``lanes`` sessions that may run at once, sharing what the engine can share.

        Raises MissingExtra where the engine is not installed, ArtifactError where it refuses the
        file.
        """

    @classmethod
    def open_for(cls, artifact: Artifact, lanes: int, longest: int) -> list[Self]:  # noqa: ARG003
        """Do the same for texts of at most ``longest`` tokens, where less memory then suffices."""
        return cls.open(artifact, lanes)


def utf8_path(path: Path) -> str:
    """Return a path as libraries want it that encode it as UTF-8, whatever the locale is.

    ArtifactError for a name that is not UTF-8.
    """
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: the engine needs a name in UTF-8; rename it") from None
