"""Text to vectors, the same for every engine."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import EngineError, InputError, UsageError
from asterisk.common.validation import integer, one_of, strings
from asterisk.common.vectors import PRECISIONS, quantize
from asterisk.model.config import ModelConfig, check_prompt_name, prompt_name_of
from asterisk.runtimes import forks
from asterisk.runtimes.engine import Engine
from asterisk.runtimes.lanes import Lanes
from asterisk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asterisk.runtimes.budget.plan import Budget

Vectors = npt.NDArray[np.float32]
OnLong = Literal["truncate", "error"]


class Runtime:
    """An opened model. Safe to call from several threads.

    ``format`` names the engine's format, ``config`` the model's shape, ``fingerprint`` its
    embedding space and ``compatible_with`` others whose vectors may be compared with it;
    ``prompts`` are texts by name that go before a text, ``default_prompt_name`` names the one that
    does unless the caller says otherwise; ``similarity`` the function that its folder asks for, if
    any. ``longest`` is the most tokens of a text, special ones
    and the prompt's included: ``config.max_seq_length`` unless a memory limit allows fewer;
    ``truncated`` counts the texts cut to it so far. ``budget`` is what was chosen to stay under a
    memory limit, None without one.
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
    ) -> None:
        self.format = engines[0].format
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
        self._lanes = Lanes(engines)
        self._counting = threading.Lock()
        forks.follow(self)

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
    ) -> npt.NDArray[Any]:
        """Embed one text, float32 [d], or a list of n, float32 [n, d].

        A list, tuple, iterator, one-dimensional array or pandas Series of strings is a list.
        ``prompt`` goes before each text, or the model's prompt called ``prompt_name``, or its
        default one. ``dim`` keeps the first dimensions only; ``normalize`` makes what is kept unit
        length, as the model's folder says if left out; ``precision`` makes bytes or bits of it, see
        `asterisk.common.vectors.quantize`. A text beyond ``longest`` tokens is
        truncated and counted, or refused. Raises InputError for a text without a token, UsageError
        for arguments that cannot be meant, EngineError for a vector that is not finite, which only
        damaged weights give.
        """
        size = self.config.embedding_size
        kept = size if dim is None else integer("dim", dim, 1, size)
        one_of("precision", precision, PRECISIONS)
        one_of("on_long", on_long, ("truncate", "error"))
        before = self.prompt(prompt_name, prompt)
        many = [texts] if isinstance(texts, str) else list(strings(texts))
        out = np.empty((len(many), kept), np.float32)

        def embed(index: int) -> None:
            ids = self.tokenize(before + many[index], on_long)
            out[index] = self.embed_ids(ids)[:kept]

        if len(many) == 1 and not show_progress:  # where ten microseconds are a share
            embed(0)
        else:
            with _progress(len(many), show_progress) as advance:
                self._each(embed, _longest_first(many), advance)
        unit = self.config.normalize if normalize is None else normalize
        # Row by row, so that a vector's last bit cannot depend on its neighbours.
        for index, row in enumerate(out):
            length = divisor(row)
            if unit:
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

    def _with_role(self, role: str, options: dict[str, Any]) -> dict[str, Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            return {**options, "prompt_name": prompt_name_of(role, self.prompts)}
        return options

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
        engine = self._lanes.take()
        try:
            return engine.run(ids)
        finally:
            self._lanes.give(engine)

    def fill(self) -> None:
        """Have every session run a text of ``longest`` tokens, one after the other.

        What memory they take for texts they have then taken. For a runtime nobody uses yet.
        """
        for engine in self._engines:
            engine.run([0] * self.longest)

    def close(self) -> None:
        """Release the engine, once the texts under way are done; later ones get EngineError."""
        self._lanes.close()

    def after_fork(self) -> None:
        """Make what other threads may have locked anew; see `asterisk.runtimes.forks`."""
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _each(
        self, work: Callable[[int], None], order: deque[int], advance: Callable[[], None]
    ) -> None:
        lanes = min(len(self._engines), len(order))
        if lanes < 2:
            _all(work, order, advance)
            return
        from concurrent.futures import ThreadPoolExecutor  # it brings logging: only if needed

        # This thread is a lane too: a waiting one would keep a new one from its core for a while.
        with ThreadPoolExecutor(lanes - 1) as pool:
            jobs = [pool.submit(_all, work, order, advance) for _ in range(lanes - 1)]
            _all(work, order, advance)
            for job in jobs:
                job.result()


def divisor(row: Vectors) -> float:
    """Return what makes float32 [d] unit length; EngineError unless it is finite."""
    length = math.sqrt(row @ row)
    if not length < math.inf:  # also when it is not a number
        raise EngineError("the engine gave a vector that is not finite")
    return max(length, 1e-12)


def _longest_first(texts: Sequence[str]) -> deque[int]:
    """Order for lanes that each take the next: they end together, and lengths seldom change.

    A new length costs LiteRT a new plan of its memory.
    """
    return deque(sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True))


def _all(work: Callable[[int], None], order: deque[int], advance: Callable[[], None]) -> None:
    while True:
        try:
            index = order.popleft()
        except IndexError:
            return
        try:
            work(index)
            advance()
        except BaseException:
            order.clear()  # for all lanes: the list has no vectors any more
            raise


@contextlib.contextmanager
def _progress(total: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each text; it draws on stderr if that is wanted."""
    if not wanted:
        yield lambda: None
        return
    from asterisk.common.progress import Bar

    with Bar(total, "texts") as bar:
        yield bar.advance
