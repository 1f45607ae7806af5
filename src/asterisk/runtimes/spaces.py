"""Embedding spaces: whether the vectors of two models may be compared.

A fingerprint names a space. A model lists in ``compatible_with`` the spaces of others whose vectors
may be compared with its own: a student distilled as LEAF does it (arXiv 2509.12539) lists its
teacher's, so that the teacher can embed the documents and the student the queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from asterisk.artifact import is_artifact, open_artifact
from asterisk.common.errors import ArtifactError
from asterisk.model.config import FINGERPRINT


class InSpace(Protocol):
    """A runtime, a checkpoint, a manifest or an index's settings."""

    @property
    def fingerprint(self) -> str:
        """The space of its own vectors."""

    @property
    def compatible_with(self) -> tuple[str, ...]:
        """Spaces whose vectors may be compared with its own."""


def spaces(model: InSpace) -> tuple[str, ...]:
    """Return the fingerprints that ``model`` goes by, its own first, each once."""
    return tuple(dict.fromkeys((model.fingerprint, *model.compatible_with)))


def share_space(one: Iterable[str], other: Iterable[str]) -> bool:
    """Tell whether two models' vectors may be compared: their `spaces` have a member in common."""
    return not set(one).isdisjoint(other)


def read_spaces(model: str) -> tuple[tuple[str, ...], int | None]:
    """Return the spaces of an artifact or a checkpoint folder, and the size of its vectors.

    ``model`` may also be a fingerprint, of which no size is known. ArtifactError for anything else.
    """
    folder = Path(model)
    if FINGERPRINT.fullmatch(model) and not folder.exists():
        return (model,), None
    if is_artifact(folder):
        manifest = open_artifact(folder).manifest
        return spaces(manifest), manifest.model.embedding_size
    from asterisk.model.checkpoint import is_checkpoint, load

    if not folder.is_dir() or not is_checkpoint(folder):
        raise ArtifactError(
            f"{model[:200]} is no artifact, no checkpoint and no fingerprint of 64 hexadecimal "
            "digits"
        )
    checkpoint = load(folder)
    return spaces(checkpoint), checkpoint.config.embedding_size
