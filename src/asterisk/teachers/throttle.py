"""Asking a service at its own pace: so many requests a minute, and longer waits after each no."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Sleep = Callable[[float], None]
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds
LONGEST_ASKED = 600.0  # seconds that a service may ask us to wait


@dataclass
class Pace:
    """Spaces the starts of requests evenly, whichever thread they come from."""

    per_minute: int | None = None
    sleep: Sleep = time.sleep
    now: Callable[[], float] = time.monotonic
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Return when the next request may start."""
        if self.per_minute is None:
            return
        with self._lock:
            begin = max(self.now(), self._next)
            self._next = begin + 60 / self.per_minute
        self.sleep(max(0.0, begin - self.now()))


def back_off(attempt: int, asked: float | None) -> float:
    """Return the seconds to wait after failure ``attempt``, counted from 0.

    Exponential with jitter, so that many clients do not come back at once; never shorter than the
    service ``asked`` for.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
    return float(max(wait, asked or 0.0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for (RFC 9110, 10.2.3), None if it does not."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        then = parsedate_to_datetime(told)
    except (ValueError, IndexError, TypeError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


@dataclass
class Budget:
    """What may be asked for in one run, in texts and in the service's tokens; None is no end.

    Tokens are what the service says it counted; before it has said anything, and for services that
    do not, a third of the bytes.
    """

    texts: int | None = None
    tokens: int | None = None
    texts_used: int = 0
    tokens_used: float = 0.0
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refusal(self, texts: int, size: int) -> str | None:
        """Return what forbids asking for ``texts`` more of ``size`` bytes, None if nothing does."""
        if self.texts is not None and self.texts_used + texts > self.texts:
            return f"{self.texts:,} texts"
        rate = self.tokens_used / self._bytes if self._bytes else 1 / 3
        if self.tokens is not None and self.tokens_used + rate * size > self.tokens:
            return f"{self.tokens:,} tokens"
        return None

    def spend(self, texts: int, size: int, tokens: int | None) -> None:
        """Note what one answer cost."""
        with self._lock:
            self.texts_used += texts
            self.tokens_used += size / 3 if tokens is None else tokens
            self._bytes += size
