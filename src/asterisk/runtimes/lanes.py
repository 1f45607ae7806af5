"""Engines shared out among threads, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from asterisk.errors import EngineError
from asterisk.runtimes.engine import Engine


class Lanes:
    """A number of engines, each used by one thread at a time.

    An engine that comes back goes straight to whoever has waited longest: with a plain queue, a
    thread that asks again and again can keep all others waiting for ever.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._lock = threading.Lock()
        self._free = deque(engines)
        self._waiting: deque[_Waiter] = deque()
        self._closed = False

    def take(self) -> Engine:
        """Wait for an engine; EngineError once the lanes have been closed."""
        with self._lock:
            if self._closed:
                raise EngineError("the runtime has been closed")
            if self._free:
                return self._free.popleft()
            waiter = _Waiter()
            self._waiting.append(waiter)
        waiter.woken.acquire()
        if waiter.engine is None:
            raise EngineError("the runtime has been closed")
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
            self._closed = True
            while self._free:
                self._free.popleft().close()
            while self._waiting:
                self._waiting.popleft().wake(None)


class _Waiter:
    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self, engine: Engine | None) -> None:
        self.engine = engine
        self.woken.release()
