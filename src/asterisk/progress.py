"""A progress bar on standard error that costs nothing where nobody looks."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Self

WIDTH = 30
REDRAW = 0.1  # seconds


def tell(line: str) -> None:
    """Print a line of progress; nobody has to be there to read it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class Bar:
    """Counts to ``total`` (0 if unknown); drawn on a terminal only, and wiped when done."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done = 0
        self.drawn = 0.0
        self.lock = threading.Lock()
        self.visible = sys.stderr.isatty()

    def advance(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        with self.lock:
            self.done += count
            now = time.monotonic()
            if self.visible and now - self.drawn > REDRAW:
                self.drawn = now
                print(f"\r{self._drawing()}", end="", file=sys.stderr, flush=True)

    def _drawing(self) -> str:
        if not self.total:
            return f"{self.done:,} {self.unit}"
        filled = WIDTH * self.done // max(self.total, self.done)
        bar = "#" * filled + "." * (WIDTH - filled)
        return f"[{bar}] {self.done:,}/{self.total:,} {self.unit}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
