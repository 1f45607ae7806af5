"""Text to vectors, the same for every engine."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import EngineError, InputError, UsageError, integer, one_of, strings
from asterisk.common.vectors import PRECISIONS, quantize
from asterisk.model.config import ModelConfig, check_prompt_name, prompt_name_of
from asterisk.runtimes.engine import Engine, EnginePool, reset_after_fork
from asterisk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asterisk.artifact import Manifest
    from asterisk.common.terminal import Bar
    from asterisk.common.text_files import Record
    from asterisk.model.checkpoint import Checkpoint
    from asterisk.runtimes.memory_budget import Budget

Vectors = npt.NDArray[np.float32]
OnLong = Literal["truncate", "error"]


class Runtime:
    """An opened model. Safe to call from several threads.

    ``config`` is the model's shape, ``fingerprint`` its embedding space. ``longest`` is the most
    tokens of a text, special ones and the prompt's included: ``config.max_seq_length`` unless a
    memory limit, which ``budget`` keeps to, allows fewer.

    A runtime is pickled by its path and options: unpickling opens the model again.
    """

    name = ""
    path: Path | None = None  # None if it was not `asterisk.load` that opened it
    max_memory: int | None = None
    prompts: Mapping[str, str] = MappingProxyType({})  # by name; one goes before a text
    default_prompt_name: str | None = None  # of the one that does unless the caller says otherwise
    compatible_with: tuple[str, ...] = ()  # spaces whose vectors may be compared with its own
    similarity: str | None = None  # the function that the model's folder asks for
    truncated = 0  # texts that were cut to `longest`

    def __init__(
        self,
        engines: Sequence[Engine],
        tokenizer: Tokenizer,
        config: ModelConfig,
        fingerprint: str,
        budget: Budget | None = None,
        *,
        source: Manifest | Checkpoint | None = None,
        recipe: str = "",
    ) -> None:
        self.format, self.recipe = engines[0].format, recipe
        self.tokenizer = tokenizer
        self.config = config
        self.fingerprint = fingerprint
        self.budget = budget
        self.longest = budget.longest if budget else config.max_seq_length
        if source is not None:
            self.name, self.similarity = source.name, source.similarity
            self.prompts, self.default_prompt_name = source.prompts, source.default_prompt_name
            self.compatible_with = source.compatible_with
        self._engines = tuple(engines)
        self._pool = EnginePool(engines)
        self._counting = threading.Lock()
        reset_after_fork(self)

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
        from asterisk.runtimes.load import reopen

        threads = self.budget.asked if self.budget else len(self._engines)
        return reopen, (str(self.path), threads, self.max_memory)

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
        length, as the model's folder says if omitted; ``precision`` is one of
        `asterisk.common.vectors.quantize`. A text beyond ``longest`` tokens is truncated and
        counted, or refused.

        The last five are sentence-transformers' names. ``show_progress_bar`` is ``show_progress``,
        ``normalize_embeddings=True`` is ``normalize=True``, and False leaves the choice to
        ``normalize``. ``batch_size`` has no effect: each text is embedded at its own length.

        Raises InputError for a text without a token, UsageError for arguments that make no sense,
        EngineError for a vector that is not finite, which only damaged weights give.
        """
        integer("batch_size", batch_size, 1)
        if convert_to_tensor or not convert_to_numpy:
            option = "convert_to_tensor=True" if convert_to_tensor else "convert_to_numpy=False"
            other = "asterisk.integrations.sentence_transformers.SentenceEncoder"
            raise UsageError(f"{option}: a runtime returns NumPy arrays; for tensors use {other}")
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
        """Embed queries: as `encode`, with the model's prompt "query" unless one is given."""
        return self.encode(texts, **self._with_role("query", options))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> npt.NDArray[Any]:
        """Embed documents: likewise, with "document", "passage" or "corpus", the first it has."""
        return self.encode(texts, **self._with_role("document", options))

    def _with_role(self, role: str, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            return {**options, "prompt_name": prompt_name_of(role, self.prompts)}
        return options

    def prompt(self, prompt_name: str | None = None, prompt: str | None = None) -> str:
        """Return what goes before a text; UsageError for a name that the model does not have."""
        if prompt is not None:
            if prompt_name is not None:
                raise UsageError("give prompt or prompt_name, not both")
            if not isinstance(prompt, str):
                raise UsageError(f"prompt must be a string, not {type(prompt).__name__}")
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        check_prompt_name(name, self.prompts)
        return self.prompts[name]

    def tokenize(self, text: str, on_long: OnLong = "truncate") -> list[int]:
        """Return the ids of ``text`` alone, special ones included, at most ``longest``."""
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
        """Have every session run its longest text, so that it has all the memory that it takes."""
        for engine in self._engines:
            engine.run([0] * self.longest)

    def close(self) -> None:
        """Release the engine, once the texts under way are embedded; later ones get EngineError."""
        self._pool.close()

    def after_fork(self) -> None:
        """Replace the lock that another thread may have held."""
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_all(self, embed: Callable[[int], None], texts: Sequence[str], show: bool) -> None:
        """Call ``embed`` with the index of every text, in as many threads as there are sessions."""
        # Longest first, so that the threads end together, and lengths seldom change: a new one
        # costs LiteRT a new plan of its memory.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
        indices = iter(order)  # which the threads share
        bar: Bar | None = None

        def work() -> None:
            try:
                for index in indices:
                    embed(index)
                    if bar:
                        bar.advance()
            except BaseException:
                order.clear()  # for all threads: the list gets no vectors any more
                raise

        with contextlib.ExitStack() as stack:
            if show:
                from asterisk.common import terminal

                bar = stack.enter_context(terminal.Bar(len(texts), "texts"))
            others = min(len(self._engines), len(texts)) - 1
            if others < 1:
                work()
                return
            from concurrent.futures import ThreadPoolExecutor  # it brings logging: only if needed

            # This thread works too: a waiting one would keep a new one from its core for a while.
            pool = stack.enter_context(ThreadPoolExecutor(others))
            jobs = [pool.submit(work) for _ in range(others)]
            work()
            for job in jobs:
                job.result()


def divisor(row: Vectors) -> float:
    """Return what makes float32 [d] unit length; EngineError unless it is finite."""
    length = math.sqrt(row @ row)
    if not length < math.inf:  # also when it is not a number
        raise EngineError("the engine gave a vector that is not finite")
    return max(length, 1e-12)


def encode_records(
    runtime: Runtime,
    records: Sequence[Record],
    prompt_name: str | None,
    on_long: OnLong,
    **options: Any,
) -> npt.NDArray[Any]:
    """Return the vectors of ``records``, one a row; InputError names the text that is refused."""
    texts = [record.text for record in records]
    try:
        return runtime.encode(texts, prompt_name=prompt_name, on_long=on_long, **options)
    except InputError as failure:
        prompt = runtime.prompt(prompt_name)
        for record in records:
            try:
                runtime.tokenize(prompt + record.text, on_long)
            except InputError:
                raise InputError(f"{record.position}: {failure}") from None
        raise
