"""Sentence encoders for small machines.

>>> import asterisk
>>> embedder = asterisk.load("artifacts/asterisk-256-wp-onnx-int8")  # doctest: +SKIP
>>> embedder.encode("a text").shape  # doctest: +SKIP
(256,)

Importing this package loads neither numpy nor an engine: every other name is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from asterisk.apps.classify.head import Head
    from asterisk.apps.dedup import deduplicate
    from asterisk.apps.search import Index
    from asterisk.common.errors import AsteriskError
    from asterisk.common.vectors import quantize, similarity, to_binary, to_int8, truncate
    from asterisk.evaluation.alignment import Alignment
    from asterisk.runtimes.runtime import Runtime

__all__ = [
    "Alignment",
    "AsteriskError",
    "Head",
    "Index",
    "Runtime",
    "__version__",
    "deduplicate",
    "export",
    "load",
    "quantize",
    "similarity",
    "to_binary",
    "to_int8",
    "truncate",
]
__version__ = "0.1.0"

_MODULES = {
    "Alignment": "asterisk.evaluation.alignment",
    "AsteriskError": "asterisk.common.errors",
    "Head": "asterisk.apps.classify.head",
    "Index": "asterisk.apps.search",
    "Runtime": "asterisk.runtimes.runtime",
    "deduplicate": "asterisk.apps.dedup",
    "quantize": "asterisk.common.vectors",
    "similarity": "asterisk.common.vectors",
    "to_binary": "asterisk.common.vectors",
    "to_int8": "asterisk.common.vectors",
    "truncate": "asterisk.common.vectors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    path: str | os.PathLike[str], *, threads: int = 1, max_memory: int | None = None
) -> Runtime:
    """Open an artifact, or a checkpoint folder with PyTorch, ready to encode.

    ``threads`` texts are encoded at once when many are given. With ``max_memory``, in bytes, the
    whole process stays under it: fewer threads and shorter texts are chosen where needed, and
    ``Runtime.budget`` says which. Raises ArtifactError for anything that cannot be trusted,
    MissingExtra where the engine is not installed, BudgetError where even one thread with short
    texts would take more.
    """
    from asterisk.runtimes.load import load as open_runtime

    return open_runtime(path, threads=threads, max_memory=max_memory)


def export(
    model: str | os.PathLike[str],
    format: str,
    recipe: str | None = None,
    *,
    out: str | os.PathLike[str] = "artifacts",
) -> Path:
    """Export a model and return the artifact's folder, ``out/NAME-FORMAT-RECIPE``.

    ``model`` is a checkpoint folder or a name on the Hugging Face hub; ``recipe`` the format's
    default if None, or "auto" for the smallest that passes its gate. Raises FidelityError if the
    vectors stray too far from FP32, UsageError for a model that the format cannot hold,
    MissingExtra where a converter or an engine is not installed.
    """
    from pathlib import Path

    from asterisk.exporters.export import export as write
    from asterisk.model.hub import open_checkpoint

    checkpoint = open_checkpoint(model if isinstance(model, str) else Path(model))
    start = f"{checkpoint.name}-{format}"
    return write(checkpoint, format, recipe, lambda it: Path(out) / f"{start}-{it.name}").folder
