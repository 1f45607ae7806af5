"""An artifact behind sentence-transformers' call signatures, as of its version 6.

>>> from asterisk.integrations.sentence_transformers import SentenceEncoder
>>> model = SentenceEncoder("artifacts/asterisk-256-wp-tflite-int8")  # doctest: +SKIP
>>> model.encode(["a text", "another"]).shape  # doctest: +SKIP
(2, 256)

Neither sentence-transformers nor PyTorch is needed, except for tensors:
``convert_to_tensor=True``, ``convert_to_numpy=False``, and `similarity`, whose result is one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import MissingPackage, UsageError, integer, strings
from asterisk.common.vectors import quantize
from asterisk.integrations import Closing, LazyRuntime
from asterisk.model.config import check_prompt_name, prompt_name_of

Array = npt.NDArray[Any]
Inputs = str | Sequence[str] | None
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
TASKS = (None, "query", "document")
INPUTS = "inputs must be a string or a list of strings"
BLOCK = 64  # rows whose differences with all others are held at once


class SentenceEncoder(Closing):
    """What ``SentenceTransformer(checkpoint)`` is, for an artifact of that checkpoint.

    Vectors are within the artifact's fidelity of it; shapes, dtypes and defaults are the same.
    What an artifact cannot do raises UsageError: token embeddings, pools of processes, devices
    other than the CPU, inputs that are not text. The empty text raises InputError. The engine is
    opened at first use; pickling keeps the path, see `LazyRuntime`.
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
        if default_prompt_name is not None:
            if default_prompt_name not in self._given:
                check_prompt_name(default_prompt_name, self.prompts)
            self.default_prompt_name = default_prompt_name
        self.truncate_dim = _checked_dim(truncate_dim)
        self._similarity_fn_name: str | None = None
        if similarity_fn_name is not None:
            self.similarity_fn_name = similarity_fn_name

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Prompts by name: those given here, then the model's own; query and document always."""
        return {"query": "", "document": "", **self._lazy.runtime.prompts, **self._given}

    @cached_property
    def default_prompt_name(self) -> str | None:
        """The prompt of `encode` where none is named: the one given here, or the model's own."""
        return self._lazy.runtime.default_prompt_name

    def encode(  # noqa: PLR0917
        self,
        inputs: Inputs = None,
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
        sentences: Inputs = None,
        task: str | None = None,
    ) -> Any:
        """Embed one text or a list of them; sentence-transformers documents the arguments.

        Returns float32 [d] or [n, d] in NumPy, unless ``precision`` says otherwise; an empty list
        gives shape [0]. ``convert_to_tensor`` gives a tensor, ``convert_to_numpy=False`` a list of
        them. int8's and uint8's scale comes from the list, so one text alone cannot have them.
        ``batch_size`` has no effect: each text is embedded at its exact length.
        """
        _check_options(output_value, device, pool, task, batch_size, precision)
        given = inputs if sentences is None else sentences
        if given is None or (inputs is not None and sentences is not None):
            raise UsageError("encode takes the texts once, as inputs")
        texts = [given] if isinstance(given, str) else list(strings(given, INPUTS))
        vectors = np.array([])  # of shape [0], as there
        if texts:
            dim = _checked_dim(truncate_dim) or self.truncate_dim
            before = self._prompt(prompt, prompt_name)
            vectors = self._lazy.encode(texts, prompt=before, show_progress_bar=show_progress_bar)
            vectors = np.ascontiguousarray(vectors[:, :dim])  # None: all of them
            # Whole vectors of a model that normalises have unit length already.
            if normalize_embeddings and (dim or not self._lazy.runtime.config.normalize):
                vectors = _unit(vectors)
            vectors = _quantize(vectors, precision or "float32")
        result: Any = vectors
        if convert_to_tensor or not convert_to_numpy:
            result = _tensor(vectors) if convert_to_tensor else list(_tensor(vectors))
        return result[0] if isinstance(given, str) else result

    def encode_query(self, inputs: Inputs = None, *given: Any, **options: Any) -> Any:
        """Embed queries: `encode` with the prompt named ``query``, unless another is given."""
        return self._encode_as("query", inputs, *given, **options)

    def encode_document(self, inputs: Inputs = None, *given: Any, **options: Any) -> Any:
        """Embed documents: `encode` with the prompt named document, passage or corpus."""
        return self._encode_as("document", inputs, *given, **options)

    def _encode_as(
        self,
        task: str,
        inputs: Inputs,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        if prompt_name is None and prompt is None:
            prompt_name = prompt_name_of(task, self.prompts)
        return self.encode(inputs, prompt_name, prompt, *more, task=task, **options)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        check_prompt_name(name, self.prompts)
        return "" if name is None else self.prompts[name] or ""

    @property
    def similarity_fn_name(self) -> str:
        """cosine, dot, or minus a euclidean or manhattan distance; by default as in the folder."""
        if self._similarity_fn_name is None:
            self._similarity_fn_name = self._lazy.runtime.similarity or "cosine"
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        text = str(getattr(name, "value", name))  # or a member of their enumeration
        if text not in SIMILARITIES:
            names = ", ".join(SIMILARITIES)
            raise UsageError(f"similarity_fn_name is one of {names}, not {text!r}")
        self._similarity_fn_name = text

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return a tensor [n, m], each of the one with each of the other; higher is nearer."""
        a, b = _rows(embeddings1), _rows(embeddings2)
        if a.shape[1] != b.shape[1]:
            raise UsageError(f"sizes differ: {a.shape[1]} and {b.shape[1]}")
        name = self.similarity_fn_name
        if name == "cosine":
            a, b = _unit(a), _unit(b)
        if name in ("cosine", "dot"):
            return _tensor(a @ b.T)
        blocks = [a[start : start + BLOCK, None] for start in range(0, len(a), BLOCK)]
        return _tensor(np.concatenate([SIMILARITIES[name](block, b[None]) for block in blocks]))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return a tensor [n], each of the one with its counterpart in the other."""
        a, b = _rows(embeddings1), _rows(embeddings2)
        if a.shape != b.shape:
            raise UsageError(f"shapes differ: {list(a.shape)} and {list(b.shape)}")
        return _tensor(SIMILARITIES[self.similarity_fn_name](a, b))

    def get_embedding_dimension(self) -> int:
        """Return how many elements `encode` gives."""
        size = self._lazy.runtime.config.embedding_size
        return min(size, self.truncate_dim or size)

    get_sentence_embedding_dimension = get_embedding_dimension  # the older name

    def get_max_seq_length(self) -> int:
        """Return the number of tokens after which a text is truncated."""
        return self._lazy.runtime.config.max_seq_length

    max_seq_length = property(get_max_seq_length)

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
    def model_card_data(self) -> Any:
        """Where evaluators leave their figures: nowhere, an artifact's stand in its manifest."""
        return SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def eval(self) -> Self:
        """Return itself: there is nothing to train."""
        return self


def _check_options(  # noqa: PLR0917
    output_value: Any, device: Any, pool: Any, task: Any, batch_size: Any, precision: Any
) -> None:
    if output_value != "sentence_embedding":
        raise UsageError("an artifact pools within its engine: it gives sentence_embedding only")
    if device is not None and str(device) != "cpu":
        raise UsageError(f"an artifact runs on the CPU, not on {device}")
    if pool is not None:
        raise UsageError("there is no pool of processes: open the encoder with more threads")
    if task not in TASKS:
        raise UsageError(f"task is query or document, not {task!r}")
    integer("batch_size", batch_size, 1)
    if precision not in (None, *PRECISIONS):
        raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")


def _checked_dim(dim: Any) -> int | None:
    return None if dim is None else integer("truncate_dim", dim, 1)


def _quantize(vectors: Array, precision: str) -> Array:
    """Return float32 [n, d] in a precision, as their ``util.quantize_embeddings`` does."""
    if precision not in ("int8", "uint8"):  # binary and ubinary are the signs, [n, d / 8]
        return quantize(vectors, precision)
    # The range that each dimension has in these rows is divided.
    if len(vectors) < 2:
        raise UsageError("the range of int8 and uint8 comes from the texts: give two or more")
    lowest = vectors.min(0)
    step = (vectors.max(0) - lowest) / 255
    steps: Array = np.floor((vectors - lowest) / np.where(step == 0, 1, step)).clip(0, 255)
    return steps.astype(np.uint8) if precision == "uint8" else (steps - 128).astype(np.int8)


def _unit(rows: Array) -> Array:
    """Return rows of unit length; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Array = (rows / np.maximum(lengths, 1e-12)).astype(rows.dtype)
    return unit


# Rows with their counterparts, by name; shapes that broadcast, [.., d], give [..].
SIMILARITIES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum(-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(-1),
}


def _rows(embeddings: Any) -> Array:
    """See an array, a tensor or a list of either as floating-point rows."""

    def array(values: Any) -> Array:  # of a tensor too, wherever it is
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)

    if isinstance(embeddings, (list, tuple)):
        rows = np.stack(list(map(array, embeddings))) if embeddings else np.empty((0, 0))
    else:
        rows = array(embeddings)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size:
        raise UsageError(f"embeddings must have shape [n, d] or [d], not {list(rows.shape)}")
    return rows if rows.dtype.kind == "f" else rows.astype(np.float32)


def _tensor(values: Array) -> Any:
    """Return ``values`` as a PyTorch tensor; MissingPackage where there is no PyTorch."""
    try:
        import torch
    except ModuleNotFoundError as failure:
        raise MissingPackage(
            "torch", ", and a tensor needs it; asterisk.common.vectors.similarity compares without"
        ) from failure
    # An empty one is float32, as there.
    return torch.from_numpy(np.ascontiguousarray(values)) if len(values) else torch.tensor([])
