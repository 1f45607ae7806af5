"""An artifact behind sentence-transformers' call signatures, as of its version 6.

>>> from asterisk.integrations.sentence_transformers import SentenceEncoder
>>> model = SentenceEncoder("artifacts/asterisk-256-wp-tflite-int8")  # doctest: +SKIP
>>> model.encode(["a text", "another"]).shape  # doctest: +SKIP
(2, 256)

Neither sentence-transformers nor PyTorch is needed, except that tensors come from PyTorch:
``convert_to_tensor=True``, ``convert_to_numpy=False``, and `similarity`, whose result is one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from asterisk.common.errors import UsageError
from asterisk.common.validation import integer, strings
from asterisk.integrations.arrays import (
    FUNCTIONS,
    compare,
    compare_pairs,
    quantiser,
    tensor,
    unit,
)
from asterisk.integrations.lazy import LazyRuntime
from asterisk.model.config import check_prompt_name, prompt_name_of

TASKS = (None, "query", "document")
INPUTS = "inputs must be a string or a list of strings"


class SentenceEncoder:
    """What ``SentenceTransformer(checkpoint)`` is, for an artifact of that checkpoint.

    Vectors are within the artifact's fidelity of it; shapes, dtypes and defaults are the same.
    What an artifact cannot do raises UsageError: token embeddings, pools of processes, devices
    other than the CPU, inputs that are not text. The empty text, which ends in a RuntimeError of
    PyTorch's there, raises InputError. ``batch_size`` is checked and has no effect: each text is
    embedded at its exact length. Texts beyond `max_seq_length` tokens are truncated.

    The engine is opened at first use; pickling keeps the path, see `LazyRuntime`.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str],
        *,
        threads: int = 1,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        similarity_fn_name: str | None = None,
    ) -> None:
        self._lazy = LazyRuntime(model_name_or_path, threads)
        self._given = {name: text or "" for name, text in (prompts or {}).items()}
        self._default_prompt_name = default_prompt_name
        self._prompts: dict[str, str] | None = None  # until the model's own are known
        if default_prompt_name is not None and default_prompt_name not in self._given:
            self._prompt(None, default_prompt_name)
        self.truncate_dim = _checked_dim(truncate_dim)
        self._similarity_fn_name: str | None = None
        if similarity_fn_name is not None:
            self.similarity_fn_name = similarity_fn_name

    def encode(  # noqa: PLR0917
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,  # noqa: ARG002
        *,
        sentences: str | Sequence[str] | None = None,
        task: str | None = None,
    ) -> Any:
        """Embed one text or a list of them.

        Returns float32 [d] or [n, d] in NumPy, unless ``precision`` is int8, uint8, binary or
        ubinary (as `sentence_transformers.util.quantize_embeddings` makes them: int8's scale comes
        from the list itself, so one text alone cannot be int8); an empty list gives shape [0].
        ``convert_to_tensor`` gives a tensor, ``convert_to_numpy=False`` a list of them.

        ``prompt``, or the prompt named ``prompt_name``, or the default one is put before each text.
        ``truncate_dim`` keeps the first dimensions, unit length again only if
        ``normalize_embeddings``; whole vectors have unit length if the model's folder says so.
        ``sentences`` is the older name of ``inputs``.
        """
        _refuse(output_value, device, pool, task, batch_size)
        given = inputs if sentences is None else sentences
        if given is None or (inputs is not None and sentences is not None):
            raise UsageError("encode takes the texts once, as inputs")
        reduce = quantiser(precision)
        texts = [given] if isinstance(given, str) else list(strings(given, INPUTS))
        vectors = np.array([])  # of shape [0], as there
        if texts:
            dim = _checked_dim(truncate_dim) or self.truncate_dim
            before = self._prompt(prompt, prompt_name)
            vectors = self._lazy.encode(texts, prompt=before, show_progress=bool(show_progress_bar))
            vectors = np.ascontiguousarray(vectors[:, :dim])  # none: all of them
            # Whole vectors of a model that normalises have unit length already.
            lengthy = dim or not self._lazy.runtime.config.normalize
            vectors = reduce(unit(vectors) if normalize_embeddings and lengthy else vectors)
        if convert_to_tensor:
            result = tensor(vectors)
        elif convert_to_numpy:
            result = vectors
        else:
            result = list(tensor(vectors))
        return result[0] if isinstance(given, str) else result

    def encode_query(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Embed queries: `encode` with the prompt named ``query``, unless another is given."""
        if prompt_name is None and prompt is None:
            prompt_name = prompt_name_of("query", self.prompts)
        return self.encode(inputs, prompt_name, prompt, *more, task="query", **options)

    def encode_document(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """Embed documents: `encode` with the prompt named document, passage or corpus."""
        if prompt_name is None and prompt is None:
            prompt_name = prompt_name_of("document", self.prompts)
        return self.encode(inputs, prompt_name, prompt, *more, task="document", **options)

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts by name: those given here, then the model's own; query and document always."""
        if self._prompts is None:
            runtime = self._lazy.runtime
            own = {"query": "", "document": "", **runtime.prompts}
            self._prompts = {**own, **self._given}
            if self._default_prompt_name is None:
                self._default_prompt_name = runtime.default_prompt_name
        return self._prompts

    @prompts.setter
    def prompts(self, prompts: Mapping[str, str]) -> None:
        self._prompts = dict(prompts)

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of `encode` where none is named: the one given here, or the model's own."""
        if self._default_prompt_name is None and self._prompts is None:
            _ = self.prompts
        return self._default_prompt_name

    @default_prompt_name.setter
    def default_prompt_name(self, name: str | None) -> None:
        _ = self.prompts
        self._default_prompt_name = name

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: cosine, dot, or minus a euclidean or manhattan distance.

        What the model's folder asks for, unless another one is given.
        """
        if self._similarity_fn_name is None:
            self._similarity_fn_name = self._lazy.runtime.similarity or "cosine"
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        told = str(getattr(name, "value", name))  # or a member of their enumeration
        if told not in FUNCTIONS:
            raise UsageError(f"similarity_fn_name is one of {', '.join(FUNCTIONS)}, not {told!r}")
        self._similarity_fn_name = told

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return a tensor [n, m], each of the one with each of the other; higher is nearer."""
        return tensor(compare(self.similarity_fn_name, embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return a tensor [n], each of the one with its counterpart in the other."""
        return tensor(compare_pairs(self.similarity_fn_name, embeddings1, embeddings2))

    def get_embedding_dimension(self) -> int:
        """Return how many elements `encode` gives."""
        size = self._lazy.runtime.config.embedding_size
        return min(size, self.truncate_dim or size)

    def get_sentence_embedding_dimension(self) -> int:
        """Return the same, under the older name."""
        return self.get_embedding_dimension()

    @property
    def max_seq_length(self) -> int:
        """Tokens after which a text is truncated."""
        return self._lazy.runtime.config.max_seq_length

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`."""
        return self.max_seq_length

    @contextlib.contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Truncate whatever is encoded within this context."""
        before, self.truncate_dim = self.truncate_dim, _checked_dim(truncate_dim)
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    @property
    def device(self) -> Any:
        """The CPU; as a string where PyTorch, which has a type for it, is not installed."""
        try:
            import torch
        except ModuleNotFoundError:
            return "cpu"
        return torch.device("cpu")

    @property
    def model_card_data(self) -> _NoCard:
        """Where evaluators would leave their figures."""
        return _NoCard()

    def eval(self) -> Self:
        """Return itself: there is nothing to train."""
        return self

    def close(self) -> None:
        """Release the engine; the next use opens it again."""
        self._lazy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        if name is None:
            name = self.default_prompt_name
        check_prompt_name(name, self.prompts)
        return "" if name is None else self.prompts[name] or ""


class _NoCard:
    """A model card of nothing: what an artifact measured stands in its manifest."""

    def set_evaluation_metrics(self, *_: object) -> None:
        """Forget them."""


def _refuse(output_value: Any, device: Any, pool: Any, task: Any, batch_size: Any) -> None:
    if output_value != "sentence_embedding":
        raise UsageError("an artifact pools within its engine: it gives sentence_embedding only")
    if device is not None and str(device) != "cpu":
        raise UsageError(f"an artifact runs on the CPU, not on {device}")
    if pool is not None:
        raise UsageError("there is no pool of processes: open the encoder with more threads")
    if task not in TASKS:
        raise UsageError(f"task is query or document, not {task!r}")
    integer("batch_size", batch_size, 1)


def _checked_dim(dim: Any) -> int | None:
    return None if dim is None else integer("truncate_dim", dim, 1)
