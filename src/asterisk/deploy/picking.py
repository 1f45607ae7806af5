"""Which artifact a board gets: the one given, the best of several, or a fresh export."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asterisk.artifact import Artifact, is_artifact, open_artifact
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.common.terminal import report as tell
from asterisk.deploy.boards import Board

_CHECKPOINT = ("config.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class Pick:
    """The artifact, why it is this one, and what else there is to say (or nothing)."""

    artifact: Artifact
    why: str
    note: str = ""


@contextmanager
def picked(path: Path, board: Board, format: str | None = None) -> Iterator[Pick]:
    """Give the artifact for ``board``: ``path`` is one, holds several, or is a checkpoint.

    ``format`` narrows the choice. A checkpoint's export is there inside of the ``with`` only.
    UsageError where the choice is not clear, ArtifactError where there is nothing to choose from.
    """
    if format is not None and format not in board.formats:
        raise UsageError(f"no format named {format!r}; there are: {', '.join(board.formats)}")
    if is_artifact(path):
        yield _given(open_artifact(path), board, format)
    elif is_checkpoint(path):
        with tempfile.TemporaryDirectory(prefix="asterisk-export-") as folder:
            yield _exported(path, board, format or board.formats[0], Path(folder))
    else:
        yield _best(path, board, format)


def _given(artifact: Artifact, board: Board, format: str | None) -> Pick:
    it = artifact.manifest
    if format not in (None, it.format):
        raise UsageError(f"{artifact.folder} is {it.format}, not {format}")
    return Pick(artifact, "as given", better(artifact, board))


def better(artifact: Artifact, board: Board) -> str:
    """Say which recipe of the format would suit ``board`` better than this one; or nothing."""
    it = artifact.manifest
    best = board.recipes.get(it.format, (it.recipe,))[0]
    if best == it.recipe:
        return ""
    return f"{best} would suit a {board.title} better: {board.because(it.format)}"


def is_checkpoint(path: Path) -> bool:
    """Tell whether a folder holds a checkpoint."""
    return all((path / name).is_file() for name in _CHECKPOINT)


def _best(path: Path, board: Board, format: str | None) -> Pick:
    try:
        folders = sorted(inner for inner in path.iterdir() if is_artifact(inner))
    except OSError as failure:
        raise ArtifactError(f"{path}: {failure.strerror}") from None
    if not folders:
        raise ArtifactError(f"{path} is no artifact, holds none, and is no checkpoint")
    found = [open_artifact(folder) for folder in folders]
    if len({it.manifest.fingerprint for it in found}) > 1:
        raise UsageError(f"{path} holds artifacts of several checkpoints: name one of them")
    suiting = [it for it in found if format in (None, it.manifest.format)]
    if not suiting:
        raise ArtifactError(f"{path} holds no {format} artifact")
    best = min(suiting, key=lambda it: board.rank(it.manifest.format, it.manifest.recipe))
    it = best.manifest
    if board.rank(it.format, it.recipe)[1] == 0:
        return Pick(best, f"of {len(found)}; {board.because(it.format)}")
    return Pick(best, f"of {len(found)}", better(best, board))


def _exported(path: Path, board: Board, format: str, out: Path) -> Pick:
    exporting = plugins.require("asterisk.exporters.export", "export")
    load = plugins.require("asterisk.model.checkpoint", "export").load
    recipe = board.recipes[format][0]
    checkpoint = load(path)
    folder = out / f"{checkpoint.name}-{format}-{recipe}"
    artifact: Artifact = exporting.export(checkpoint, format, recipe, folder, tell)
    return Pick(artifact, f"exported; {board.because(format)}")
