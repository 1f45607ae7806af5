"""Text to vectors, the same for every engine."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from asterisk.errors import EngineError, InputError, UsageError
from asterisk.model.config import ModelConfig
from asterisk.runtimes import forks
from asterisk.runtimes.engine import Engine
from asterisk.runtimes.lanes import Lanes
from asterisk.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asterisk.budget.plan import Budget

Vectors = npt.NDArray[np.float32]
OnLong = Literal["truncate", "error"]


class Runtime:
    """An opened model. Safe to call from several threads.

    ``format`` names the engine's format, ``config`` the model's shape, ``fingerprint`` its
    embedding space; ``longest`` is the most tokens of a text, ``config.max_positions`` unless a
    memory limit allows fewer, and ``truncated`` counts the texts cut to it so far. ``budget`` is
    what was chosen to stay under a memory limit, None without one.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        tokenizer: Tokenizer,
        config: ModelConfig,
        fingerprint: str,
        budget: Budget | None = None,
    ) -> None:
        self.format = engines[0].format
        self.tokenizer = tokenizer
        self.config = config
        self.fingerprint = fingerprint
        self.budget = budget
        self.longest = budget.longest if budget else config.max_positions
        self.truncated = 0
        self._engines = tuple(engines)
        self._lanes = Lanes(engines)
        self._counting = threading.Lock()
        forks.follow(self)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        normalize: bool = True,
        dim: int | None = None,
        show_progress: bool = False,
        on_long: OnLong = "truncate",
    ) -> Vectors:
        """Embed one text, float32 [d], or a list of n, float32 [n, d].

        ``dim`` keeps the first dimensions only; ``normalize`` makes what is kept unit length.
        A text beyond ``longest`` tokens is truncated and counted, or refused.
        Raises InputError for an empty text, UsageError for arguments that cannot be meant,
        EngineError for a vector that is not finite, which only damaged weights give.
        """
        size = self.config.embedding_size
        if dim is not None and not (isinstance(dim, int) and 1 <= dim <= size):
            raise UsageError(f"dim must be 1 to {size}, not {dim}")
        if on_long not in ("truncate", "error"):
            raise UsageError(f"on_long must be 'truncate' or 'error', not {on_long!r}")
        if texts is None:
            raise UsageError("texts must be a string or a list of strings, not None")
        many = [texts] if isinstance(texts, str) else list(texts)
        kept = size if dim is None else dim
        out = np.empty((len(many), kept), np.float32)

        def embed(index: int) -> None:
            out[index] = self.embed_ids(self.tokenize(many[index], on_long))[:kept]

        if len(many) == 1 and not show_progress:  # where ten microseconds are a share
            embed(0)
        else:
            with _progress(len(many), show_progress) as advance:
                self._each(embed, _longest_first(many), advance)
        # Row by row, so that a vector's last bit cannot depend on its neighbours.
        for index, row in enumerate(out):
            length = divisor(row)
            if normalize:
                out[index] = row / length
        return out[0] if isinstance(texts, str) else out

    def tokenize(self, text: str, on_long: OnLong = "truncate") -> list[int]:
        """Return the ids that `encode` gives the engine, at most ``longest``."""
        if not isinstance(text, str):
            raise UsageError(f"a text must be a string, not {type(text).__name__}")
        most = self.longest
        ids = self.tokenizer.encode(text, most + 1)
        if not ids:
            raise InputError("an empty text has no vector")
        if len(ids) > most:
            if on_long == "error":
                raise InputError(f"a text has more than {most} tokens")
            with self._counting:
                self.truncated += 1
            ids = ids[:most]
        return ids

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
    sizes = [len(text) if isinstance(text, str) else 0 for text in texts]
    return deque(sorted(range(len(texts)), key=sizes.__getitem__, reverse=True))


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
    from asterisk.progress import Bar

    with Bar(total, "texts") as bar:
        yield bar.advance
