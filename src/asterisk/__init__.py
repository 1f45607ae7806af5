"""Compact text embeddings for small machines.

>>> import asterisk
>>> embedder = asterisk.load("artifacts/asterisk-256-wp-onnx-int8")  # doctest: +SKIP
>>> embedder.encode("a text").shape  # doctest: +SKIP
(256,)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from asterisk.runtimes.runtime import Runtime

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def load(
    path: str | os.PathLike[str], *, threads: int = 1, max_memory: int | None = None
) -> Runtime:
    """Open an artifact, or a checkpoint folder with PyTorch, ready to encode.

    ``threads`` texts are encoded at once when many are given. With ``max_memory``, in bytes, the
    whole process stays under it: of an artifact, fewer threads and shorter texts are chosen where
    they have to be, and ``Runtime.budget`` says which. Raises ArtifactError for anything that
    cannot be trusted, MissingExtra where the engine is not installed, BudgetError where even one
    thread with short texts would take more.
    """
    from asterisk.runtimes.load import load as open_runtime

    return open_runtime(path, threads=threads, max_memory=max_memory)
