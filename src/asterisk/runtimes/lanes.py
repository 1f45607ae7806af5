"""Engines shared out among threads, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from asterisk.common.errors import EngineError
from asterisk.runtimes import forks
from asterisk.runtimes.engine import Engine


class Lanes:
    """A number of engines, each used by one thread at a time.

    An engine that comes back goes straight to whoever has waited longest: with a plain queue, a
    thread that asks again and again can keep all others waiting for ever.

    A process that forks takes along what was idle. What another thread was using is in no known
    state in the child, and nobody there brings it back.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._lock = threading.Lock()
        self._every = tuple(engines)
        self._free = deque(engines)
        self._waiting: deque[_Waiter] = deque()
        self._closed = ""
        self._lost: list[Engine] = []
        forks.follow(self)

    def take(self) -> Engine:
        """Wait for an engine; EngineError once the lanes have been closed, or lost by a fork."""
        with self._lock:
            if self._closed:
                raise EngineError(self._closed)
            if self._free:
                return self._free.popleft()
            waiter = _Waiter()
            self._waiting.append(waiter)
        waiter.woken.acquire()
        if waiter.engine is None:
            raise EngineError(self._closed)
        return waiter.engine

    def give(self, engine: Engine) -> None:
        """Bring an engine back."""
        with self._lock:
            if self._closed:
                engine.close()
            elif self._waiting:
                self._waiting.popleft().wake(engine)
            else:
                self._free.append(engine)

    def close(self) -> None:
        """Close every engine: those in use as soon as they come back."""
        with self._lock:
            self._closed = "the runtime has been closed"
            while self._free:
                self._free.popleft().close()
            while self._waiting:
                self._waiting.popleft().wake(None)

    def after_fork(self) -> None:
        """Start anew in a child process, with the engines that nobody was using."""
        self._lock = threading.Lock()
        self._waiting.clear()
        # Kept, because releasing one might wait for a lock within it that stays locked for ever.
        self._lost += [one for one in self._every if self._every.count(one) > self._free.count(one)]
        self._every = tuple(one for one in self._every if one not in self._lost)
        self._free = deque(self._every)
        if not (self._every or self._closed):
            self._closed = (
                "the process forked while the runtime was in use: load it again in the child"
            )


class _Waiter:
    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self, engine: Engine | None) -> None:
        self.engine = engine
        self.woken.release()
