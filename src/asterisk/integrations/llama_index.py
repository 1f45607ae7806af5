"""An artifact as LlamaIndex's embedding model, which needs llama-index-core beside the engine.

>>> from asterisk.integrations.llama_index import AsteriskEmbedding
>>> index = VectorStoreIndex(nodes, embed_model=AsteriskEmbedding("artifact"))  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from asterisk.common.errors import MissingPackage

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ModuleNotFoundError as failure:
    advice = "; install it with: pip install llama-index-core"
    raise MissingPackage("llama-index-core", advice) from failure

from asterisk.common.errors import integer, strings
from asterisk.integrations import TEXTS, LazyRuntime

BATCH = 256  # texts a call: nothing is padded, so that a call's own cost is what counts


class AsteriskEmbedding(BaseEmbedding):  # type: ignore[misc]
    """Vectors of texts, ``dim`` elements or all of the artifact's, each with its role's prompt.

    The engine is opened at first use; what is serialised is the path, see `LazyRuntime`. The
    asynchronous methods run in a thread. Errors are those of `Runtime.encode`.
    """

    artifact: str = Field(description="Path of the artifact.")
    threads: int = Field(default=1, description="Texts embedded at once.")
    dim: int | None = Field(default=None, description="Leading dimensions to keep; None: all.")
    _lazy: LazyRuntime = PrivateAttr()

    def __init__(self, artifact: str | os.PathLike[str], **options: Any) -> None:
        path = os.fspath(artifact)
        options = {"model_name": path, "embed_batch_size": BATCH, **options}
        for name in ("threads", "dim"):
            if options.get(name) is not None:
                options[name] = integer(name, options[name], 1)
        super().__init__(artifact=path, **options)
        self._lazy = LazyRuntime(path, self.threads)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which it is serialised."""
        return "AsteriskEmbedding"

    def close(self) -> None:
        """Release the engine; the next use opens it again."""
        self._lazy.close()

    def get_text_embedding_batch(self, texts: Iterable[str], *more: Any, **options: Any) -> Any:
        """Embed texts as the library does, which takes a string or a dictionary for a list."""
        return super().get_text_embedding_batch(list(strings(texts, TEXTS)), *more, **options)

    async def aget_text_embedding_batch(
        self, texts: Iterable[str], *more: Any, **options: Any
    ) -> Any:
        """Do the same, asynchronously."""
        given = list(strings(texts, TEXTS))
        return await super().aget_text_embedding_batch(given, *more, **options)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._lazy.documents(texts, self.dim)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._lazy.documents([text], self.dim)[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._lazy.queries([query], self.dim)[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)
