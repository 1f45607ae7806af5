"""What an adapter of an engine provides, and how threads share its sessions."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError, EngineError

Vector = npt.NDArray[np.float32]


class Engine(ABC):
    """One session of a native engine, called by one thread at a time, with checked ids only."""

    format: ClassVar[str]

    @abstractmethod
    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""

    def close(self) -> None:  # noqa: B027 - most engines have nothing to release
        """Release the session; it is not used again."""


class ArtifactEngine(Engine):
    """An engine of artifacts: what the entry points of `asterisk.runtimes` name."""

    @classmethod
    def open(cls, artifact: Artifact, sessions: int) -> list[Self]:
        """Open ``sessions`` that may run at once, sharing what the engine can share.

        Raises MissingExtra where the engine is not installed, ArtifactError where it refuses the
        file.
        """
        return [cls(artifact) for _ in range(sessions)]  # type: ignore[call-arg]

    @classmethod
    def open_for(cls, artifact: Artifact, sessions: int, longest: int) -> list[Self]:  # noqa: ARG003
        """Do the same for texts of at most ``longest`` tokens, where less memory then suffices."""
        return cls.open(artifact, sessions)


def utf8_path(path: Path) -> str:
    """Return a path for libraries that encode it as UTF-8; ArtifactError where that is not it."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: the engine needs a name in UTF-8; rename it") from None


class EnginePool:
    """Engines shared by threads; each is used by one at a time.

    An engine that comes back goes straight to whoever has waited longest: with a plain queue, a
    thread that asks again and again can keep all others waiting for ever.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._lock = threading.Lock()
        self._engines = tuple(engines)
        self._idle = deque(engines)
        self._waiting: deque[threading.Lock] = deque()
        self._handed_over: dict[threading.Lock, Engine] = {}
        self._closed = ""  # why, once it is
        reset_after_fork(self)

    def take(self) -> Engine:
        """Wait for an engine; EngineError once the pool is closed, or lost by a fork."""
        with self._lock:
            if self._closed:
                raise EngineError(self._closed)
            if self._idle:
                return self._idle.popleft()
            woken = threading.Lock()
            woken.acquire()
            self._waiting.append(woken)
        woken.acquire()
        engine = self._handed_over.pop(woken, None)
        if engine is None:
            raise EngineError(self._closed)
        return engine

    def give(self, engine: Engine) -> None:
        """Bring an engine back."""
        with self._lock:
            if self._closed:
                engine.close()
            elif self._waiting:
                woken = self._waiting.popleft()
                self._handed_over[woken] = engine
                woken.release()
            else:
                self._idle.append(engine)

    def close(self) -> None:
        """Close every engine: those in use as soon as they come back."""
        with self._lock:
            self._closed = "the runtime has been closed"
            while self._idle:
                self._idle.popleft().close()
            while self._waiting:
                self._waiting.popleft().release()

    def after_fork(self) -> None:
        """Start anew in a child process, with the engines that nobody was using."""
        self._lock = threading.Lock()
        self._waiting.clear()
        # What another thread was using is in no known state. It is kept and not released, because
        # that might wait for a lock within it that stays locked for ever.
        every, idle = self._engines, self._idle
        self._idle = deque(engine for engine in every if idle.count(engine) == every.count(engine))
        if not (self._idle or self._closed):
            reason = "the process forked while the runtime was in use"
            self._closed = f"{reason}: load it again in the child"


_owners: weakref.WeakSet[Any] = weakref.WeakSet()


def reset_after_fork(owner: Any) -> None:
    """Call ``owner.after_fork()`` in every child that this process forks while ``owner`` lives."""
    # A child has one thread only: a lock that another thread held stays locked there for ever.
    _owners.add(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [owner.after_fork() for owner in list(_owners)])
