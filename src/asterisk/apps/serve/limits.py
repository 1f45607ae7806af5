"""How much the server holds at once, so that no client decides on its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MIB = 1 << 20
_LEAST = 8 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests: bytes, counts and seconds."""

    body: int = 4 * MIB  # bytes of one request's body
    bodies: int = 8 * MIB  # of all bodies that are being read
    answers: int = 17 * MIB  # of all answers, from their request until they have left
    texts: int = 2048  # in one request, the API's own bound
    queue: int = 4096  # texts that wait, of all requests
    connections: int = 1024
    arrival: float = 20.0  # seconds a request has to arrive, an answer to leave
    answer: float = 60.0  # seconds from arrival to vectors
    idle: float = 75.0  # seconds a connection may wait for its next request
    grace: float = 10.0  # seconds for what is under way when the server stops


def reserve(max_memory: int) -> int:
    """Return how many bytes of a process's ``max_memory`` are for requests, not the engine."""
    return max(max_memory // 8, _LEAST)


def with_reserve(need: int) -> int:
    """Return the least limit that leaves ``need`` bytes beside what is for requests."""
    return max(need + _LEAST, -(-need * 8 // 7))


def limits_for(size: int | None) -> Limits:
    """Return the bounds for requests that may take ``size`` bytes, None for the default ones."""
    default = Limits()
    if size is None:
        return default
    # A character of a body can come to take four bytes, and exist twice: half of the size is for
    # bodies. A text in an answer takes about 4 KiB, and answers have a bit more than a quarter, so
    # that two to the longest list fit. What a client does not read is up to 96 KiB a connection.
    return Limits(
        body=min(default.body, size // 32),
        bodies=min(default.bodies, size // 16),
        answers=min(default.answers, size * 9 // 32),
        texts=min(default.texts, size // (32 << 10)),
        queue=min(default.queue, size // (16 << 10)),
        connections=min(default.connections, size // (128 << 10)),
    )


@dataclass(slots=True)
class ByteBudget:
    """At most ``limit`` bytes of one kind, held by all requests; for the event loop's thread."""

    limit: int
    reserved: int = 0

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Give one request a reservation, released in the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.resize(0)


@dataclass(slots=True)
class Reservation:
    """What one request holds of a budget: ``size`` bytes."""

    budget: ByteBudget
    size: int = 0

    def grow(self, size: int, *, allow_first: bool = False) -> bool:
        """Reserve ``size`` more bytes; False if they are not free.

        With ``allow_first`` a request that is alone may exceed the limit.
        """
        free = self.budget.reserved + size <= self.budget.limit
        if free or (allow_first and not self.budget.reserved):
            self.resize(self.size + size)
            return True
        return False

    def resize(self, size: int) -> None:
        """Hold ``size`` bytes from now on."""
        self.budget.reserved += size - self.size
        self.size = size
