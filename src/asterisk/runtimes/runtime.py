"""Text to vectors, the same for every engine."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import (
    ArtifactError,
    EngineError,
    InputError,
    UsageError,
    integer,
    one_of,
    strings,
)
from asterisk.common.vectors import PRECISIONS, quantize
from asterisk.model.config import ModelConfig, check_prompt_name, prompt_name_of
from asterisk.runtimes.engine import Engine, EnginePool, follow
from asterisk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asterisk.common.text_files import Record
    from asterisk.runtimes.memory_budget import Budget


Vectors = npt.NDArray[np.float32]
OnLong = Literal["truncate", "error"]


class Runtime:
    """An opened model. Safe to call from several threads.

    ``name``, ``format`` and ``recipe`` say what was opened, ``path`` where it is: None if it was
    not `asterisk.load` that opened it. ``config`` is the model's shape, ``fingerprint`` its
    embedding space and ``compatible_with`` others whose vectors may be compared with it;
    ``prompts`` are texts by name that go before a text, ``default_prompt_name`` names the one that
    does unless the caller says otherwise; ``similarity`` is the function that the model's folder
    asks for, if any. ``longest`` is the most tokens of a text, special ones and the prompt's
    included: ``config.max_seq_length`` unless a memory limit allows fewer; ``truncated`` counts the
    texts cut to it so far. ``budget`` is what was chosen to stay under a memory limit.

    A runtime is pickled by its path and options: unpickling opens the model again.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        tokenizer: Tokenizer,
        config: ModelConfig,
        fingerprint: str,
        budget: Budget | None = None,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        compatible_with: Sequence[str] = (),
        similarity: str | None = None,
        name: str = "",
        recipe: str = "",
    ) -> None:
        self.name = name
        self.format = engines[0].format
        self.recipe = recipe
        self.path: Path | None = None
        self.max_memory: int | None = None
        self.tokenizer = tokenizer
        self.config = config
        self.fingerprint = fingerprint
        self.budget = budget
        self.prompts: Mapping[str, str] = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.compatible_with = tuple(compatible_with)
        self.similarity = similarity
        self.longest = budget.longest if budget else config.max_seq_length
        self.truncated = 0
        self._engines = tuple(engines)
        self._pool = EnginePool(engines)
        self._counting = threading.Lock()
        follow(self)

    def __repr__(self) -> str:
        of = f"path={str(self.path)!r}" if self.path else f"name={self.name!r}"
        return (
            f"Runtime({of}, format={self.format!r}, recipe={self.recipe!r}, "
            f"embedding_size={self.config.embedding_size}, max_length={self.longest}, "
            f"threads={len(self._engines)})"
        )

    def __reduce__(self) -> tuple[Callable[..., Runtime], tuple[str, int, int | None]]:
        if self.path is None:
            raise UsageError(f"{self!r} has no path to be pickled by: open it with asterisk.load")
        threads = self.budget.asked if self.budget else len(self._engines)
        return _reopen, (str(self.path), threads, self.max_memory)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize: bool | None = None,
        dim: int | None = None,
        precision: str = "float32",
        show_progress: bool = False,
        on_long: OnLong = "truncate",
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
    ) -> npt.NDArray[Any]:
        """Embed one text, float32 [d], or a list of n, float32 [n, d].

        A list, tuple, iterator, one-dimensional array or pandas Series of strings is a list.
        ``prompt`` goes before each text, or the model's prompt called ``prompt_name``, or its
        default one. ``dim`` keeps the first dimensions only; ``normalize`` makes what is left unit
        length, as the model's folder says if omitted; ``precision`` makes bytes or bits of it, see
        `asterisk.common.vectors.quantize`. A text beyond ``longest`` tokens is truncated and
        counted, or refused.

        The last five are sentence-transformers' names. ``show_progress_bar`` is ``show_progress``;
        ``normalize_embeddings=True`` is ``normalize=True``, and False leaves the choice to
        ``normalize``, since a model that normalises does so there too. ``batch_size`` has no
        effect: each text is embedded at its own length. Results are NumPy arrays; for tensors see
        `asterisk.integrations.sentence_transformers`.

        Raises InputError for a text without a token, UsageError for arguments that make no sense,
        EngineError for a vector that is not finite, which only damaged weights give.
        """
        integer("batch_size", batch_size, 1)
        if convert_to_tensor or not convert_to_numpy:
            option = "convert_to_tensor=True" if convert_to_tensor else "convert_to_numpy=False"
            raise UsageError(
                f"{option}: a runtime returns NumPy arrays; for tensors use "
                "asterisk.integrations.sentence_transformers.SentenceEncoder"
            )
        size = self.config.embedding_size
        columns = size if dim is None else integer("dim", dim, 1, size)
        one_of("precision", precision, PRECISIONS)
        one_of("on_long", on_long, ("truncate", "error"))
        before = self.prompt(prompt_name, prompt)
        many = [texts] if isinstance(texts, str) else list(strings(texts))
        out = np.empty((len(many), columns), np.float32)

        def embed(index: int) -> None:
            ids = self.tokenize(before + many[index], on_long)
            out[index] = self.embed_ids(ids)[:columns]

        show = show_progress or bool(show_progress_bar)
        if len(many) == 1 and not show:  # where ten microseconds are a share
            embed(0)
        else:
            self._embed_all(embed, many, show)
        if normalize is None or normalize_embeddings:
            normalize = normalize_embeddings or self.config.normalize
        # Row by row, so that a vector's last bit cannot depend on its neighbours.
        for index, row in enumerate(out):
            length = divisor(row)
            if normalize:
                out[index] = row / length
        made = quantize(out, precision)
        return made[0] if isinstance(texts, str) else made

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> npt.NDArray[Any]:
        """Embed queries: as `encode`, with the model's prompt called "query" unless one is given.

        As sentence-transformers' method of this name; ``options`` are those of `encode`.
        """
        return self.encode(texts, **self._with_role("query", options))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> npt.NDArray[Any]:
        """Embed documents: as `encode`, with the model's prompt for them unless one is given.

        The first of "document", "passage" and "corpus" that it has, as in sentence-transformers'
        method of this name; ``options`` are those of `encode`.
        """
        return self.encode(texts, **self._with_role("document", options))

    def _with_role(self, role: str, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            return {**options, "prompt_name": prompt_name_of(role, self.prompts)}
        return options

    def prompt(self, prompt_name: str | None = None, prompt: str | None = None) -> str:
        """Return what goes before a text; UsageError for a name that the model does not have."""
        if prompt is not None and prompt_name is not None:
            raise UsageError("give prompt or prompt_name, not both")
        if prompt is not None:
            if not isinstance(prompt, str):
                raise UsageError(f"prompt must be a string, not {type(prompt).__name__}")
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        check_prompt_name(name, self.prompts)
        return self.prompts[name]

    def tokenize(self, text: str, on_long: OnLong = "truncate") -> list[int]:
        """Return the ids that `encode` gives the engine, special ones included.

        At most ``longest`` of them. No prompt is put before ``text``.
        """
        if not isinstance(text, str):
            raise UsageError(f"a text must be a string, not {type(text).__name__}")
        tokenizer = self.tokenizer
        specials = len(tokenizer.prefix) + len(tokenizer.suffix)
        most = self.longest - specials
        ids = tokenizer.encode(text, most + 1)
        if not ids and not specials:
            raise InputError("an empty text has no vector")
        if len(ids) > most:
            if on_long == "error":
                raise InputError(f"a text has more than {self.longest} tokens")
            with self._counting:
                self.truncated += 1
            ids = ids[:most]
        return tokenizer.with_special_tokens(ids) if specials else ids

    def embed_ids(self, ids: Sequence[int]) -> Vectors:
        """Embed token ids, float32 [embedding_size], not normalised; InputError unless valid."""
        if not 1 <= len(ids) <= self.longest:
            raise InputError(f"{len(ids)} tokens; 1 to {self.longest} are possible")
        if min(ids) < 0 or max(ids) >= self.config.vocab_size:
            raise InputError(f"a token id lies outside 0 to {self.config.vocab_size - 1}")
        engine = self._pool.take()
        try:
            return engine.run(ids)
        finally:
            self._pool.give(engine)

    def fill(self) -> None:
        """Have every session run a text of ``longest`` tokens, one after the other.

        Each has then taken all the memory that it takes for texts. For a runtime not in use yet.
        """
        for engine in self._engines:
            engine.run([0] * self.longest)

    def close(self) -> None:
        """Release the engine, once the texts under way are embedded; later ones get EngineError."""
        self._pool.close()

    def after_fork(self) -> None:
        """Replace the lock that another thread may have held; see `asterisk.runtimes.engine`."""
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_all(self, embed: Callable[[int], None], texts: Sequence[str], show: bool) -> None:
        """Call ``embed`` with the index of every text, in as many threads as there are sessions."""
        # Longest first, so that the threads end together, and lengths seldom change: a new one
        # costs LiteRT a new plan of its memory.
        order = deque(sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True))

        def work(advance: Callable[[], None] | None) -> None:
            while True:
                try:
                    index = order.popleft()
                except IndexError:
                    return
                try:
                    embed(index)
                    if advance:
                        advance()
                except BaseException:
                    order.clear()  # for all threads: the list gets no vectors any more
                    raise

        with contextlib.ExitStack() as stack:
            advance = None
            if show:
                from asterisk.common.terminal import Bar

                advance = stack.enter_context(Bar(len(texts), "texts")).advance
            others = min(len(self._engines), len(order)) - 1
            if others < 1:
                work(advance)
                return
            from concurrent.futures import ThreadPoolExecutor  # it brings logging: only if needed

            # This thread works too: a waiting one would keep a new one from its core for a while.
            pool = stack.enter_context(ThreadPoolExecutor(others))
            jobs = [pool.submit(work, advance) for _ in range(others)]
            work(advance)
            for job in jobs:
                job.result()


def divisor(row: Vectors) -> float:
    """Return what makes float32 [d] unit length; EngineError unless it is finite."""
    length = math.sqrt(row @ row)
    if not length < math.inf:  # also when it is not a number
        raise EngineError("the engine gave a vector that is not finite")
    return max(length, 1e-12)


def _reopen(path: str, threads: int, max_memory: int | None) -> Runtime:
    from asterisk.runtimes.load import load

    if not Path(path).exists():
        raise ArtifactError(f"a pickled runtime opens its model again, and {path} is gone")
    return load(path, threads=threads, max_memory=max_memory)


def encode_records(
    runtime: Runtime,
    records: Sequence[Record],
    prompt_name: str | None,
    on_long: OnLong,
    **options: Any,
) -> npt.NDArray[Any]:
    """Return the vectors of ``records``, one a row; ``options`` are those of `Runtime.encode`.

    InputError names the position of a text that the runtime refuses.
    """
    texts = [record.text for record in records]
    try:
        return runtime.encode(texts, prompt_name=prompt_name, on_long=on_long, **options)
    except InputError as failure:
        prompt = runtime.prompt(prompt_name)
        for record in records:
            try:
                runtime.tokenize(prompt + record.text, on_long)
            except InputError:
                raise InputError(f"{record.place}: {failure}") from None
        raise
