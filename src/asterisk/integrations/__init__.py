"""Artifacts where people already work: one module a library, each importing that library only.

``sentence_transformers`` has its call signatures and needs numpy alone, ``langchain`` and
``llama_index`` are embeddings for those, ``sklearn`` is a transformer for pipelines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from asterisk.common.errors import UsageError, integer, strings
from asterisk.runtimes.engine import reset_after_fork
from asterisk.runtimes.load import MOST_THREADS, load
from asterisk.runtimes.runtime import Runtime

TEXTS = "texts must be a list of strings"


class LazyRuntime:
    """An artifact by its path, which is all that is pickled, copied or compared.

    Opened at first use, and anew after `close` and in a process that forked. Safe to call from
    several threads. Opening raises what `asterisk.load` does.
    """

    def __init__(self, artifact: str | os.PathLike[str], threads: int = 1) -> None:
        if not isinstance(artifact, (str, os.PathLike)):
            raise UsageError(f"an artifact is named by its path, not by {type(artifact).__name__}")
        self.artifact = os.fspath(artifact)
        self.threads = integer("threads", threads, 1, MOST_THREADS)
        self._runtime: Runtime | None = None
        self._left_behind: list[Runtime] = []
        self._opening = threading.Lock()
        reset_after_fork(self)

    @property
    def runtime(self) -> Runtime:
        """The runtime, opened if it is not."""
        with self._opening:
            if self._runtime is None:
                self._runtime = load(Path(self.artifact), threads=self.threads)
            return self._runtime

    def encode(self, texts: str | Iterable[str], **options: Any) -> npt.NDArray[Any]:
        """Embed as `Runtime.encode` does, with its ``options``."""
        return self.runtime.encode(texts, **options)

    def queries(self, texts: Iterable[str], dim: int | None = None) -> list[list[float]]:
        """Embed queries as lists of Python's floats, as other people's stores take them."""
        given = list(strings(texts, TEXTS))
        return list(self.runtime.encode_query(given, dim=dim).tolist()) if given else []

    def documents(self, texts: Iterable[str], dim: int | None = None) -> list[list[float]]:
        """Embed documents in the same form."""
        given = list(strings(texts, TEXTS))
        return list(self.runtime.encode_document(given, dim=dim).tolist()) if given else []

    def close(self) -> None:
        """Release the engine, if there is one, once the texts under way are finished."""
        with self._opening:
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    def after_fork(self) -> None:
        """Begin anew in the child: another thread may have been opening or using the engine."""
        self._opening = threading.Lock()
        if self._runtime is not None:
            # Kept, since releasing it might wait for a lock that stays locked for ever.
            self._left_behind.append(self._runtime)
            self._runtime = None

    def __reduce__(self) -> tuple[type[LazyRuntime], tuple[str, int]]:
        return type(self), (self.artifact, self.threads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LazyRuntime) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())


class Closing:
    """Something with a runtime that is opened at first use."""

    _lazy: LazyRuntime

    def close(self) -> None:
        """Release the engine; the next use opens it again."""
        self._lazy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
