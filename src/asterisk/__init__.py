"""Compact text embeddings for small machines.

>>> import asterisk
>>> embedder = asterisk.load("artifacts/asterisk-256-onnx-int8")  # doctest: +SKIP
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


def load(path: str | os.PathLike[str], *, threads: int = 1) -> Runtime:
    """Open an artifact, or a checkpoint folder with PyTorch, ready to encode.

    ``threads`` texts are encoded at once when many are given. Raises ArtifactError for anything
    that cannot be trusted, MissingExtra where the engine is not installed.
    """
    from asterisk.runtimes.load import load as open_runtime

    return open_runtime(path, threads=threads)
