"""An artifact as LangChain's embeddings, which need langchain-core beside the engine.

>>> from asterisk.integrations.langchain import AsteriskEmbeddings
>>> store = InMemoryVectorStore(AsteriskEmbeddings("artifact"))  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from asterisk.common.errors import MissingPackage

try:
    from langchain_core.embeddings import Embeddings
except ModuleNotFoundError as failure:
    advice = "; install it with: pip install langchain-core"
    raise MissingPackage("langchain-core", advice) from failure

from asterisk.integrations import Closing, LazyRuntime


class AsteriskEmbeddings(Closing, Embeddings):  # type: ignore[misc]
    """Vectors of texts, ``dim`` elements or all of the artifact's, each with its role's prompt.

    The engine is opened at first use and pickling keeps the path, see `LazyRuntime`. The methods
    with an ``a`` run in a thread of LangChain's executor. Errors are those of `Runtime.encode`.
    """

    def __init__(
        self, artifact: str | os.PathLike[str], *, threads: int = 1, dim: int | None = None
    ) -> None:
        self._lazy = LazyRuntime(artifact, threads)
        self.artifact, self.threads, self.dim = self._lazy.artifact, self._lazy.threads, dim

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Embed texts that are to be found."""
        return self._lazy.documents(texts, self.dim)

    def embed_query(self, text: str) -> list[float]:
        """Embed a text to find others by."""
        return self._lazy.queries([text], self.dim)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.artifact!r}, threads={self.threads}, dim={self.dim})"
