"""Sentence encoders for small machines.

>>> import asterisk
>>> embedder = asterisk.load("artifacts/asterisk-256-wp-onnx-int8")  # doctest: +SKIP
>>> embedder.encode("a text").shape  # doctest: +SKIP
(256,)

Importing this package loads neither numpy nor an engine: a name is imported when it is first used.
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
    from asterisk.runtimes.load import load
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

_NAMES = {
    "asterisk.apps.classify.head": ("Head",),
    "asterisk.apps.dedup": ("deduplicate",),
    "asterisk.apps.search": ("Index",),
    "asterisk.common.errors": ("AsteriskError",),
    "asterisk.common.vectors": ("quantize", "similarity", "to_binary", "to_int8", "truncate"),
    "asterisk.evaluation.alignment": ("Alignment",),
    "asterisk.runtimes.load": ("load",),
    "asterisk.runtimes.runtime": ("Runtime",),
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def export(
    model: str | os.PathLike[str],
    format: str,
    recipe: str | None = None,
    *,
    out: str | os.PathLike[str] = "artifacts",
) -> Path:
    """Export a model and return the artifact's folder, ``out/NAME-FORMAT-RECIPE``.

    ``model`` is a checkpoint folder or a name on the Hugging Face hub; ``recipe`` the format's
    default if None, or "auto" for the smallest that passes its gate. FidelityError if the vectors
    stray too far from FP32, UsageError for a model that the format cannot hold, MissingExtra where
    a converter or an engine is not installed.
    """
    from pathlib import Path

    from asterisk.exporters.export import export as write
    from asterisk.model.hub import open_checkpoint

    checkpoint = open_checkpoint(model if isinstance(model, str) else Path(model))
    start = f"{checkpoint.name}-{format}"
    return write(checkpoint, format, recipe, lambda it: Path(out) / f"{start}-{it.name}").folder
