"""Progress on standard error: lines, and bars where tqdm is installed and a terminal shows them."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self


def tell(line: str) -> None:
    """Print a line of progress; nobody has to be there to read it."""
    with contextlib.suppress(OSError):
        if tqdm := sys.modules.get("tqdm"):  # which moves the bars out of the way
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


class Bar:
    """Counts ``unit`` from ``done`` to ``total``, 0 if unknown; wiped when done. For all threads.

    A ``total`` that costs something is given as a function, which is called if it will be seen.
    """

    def __init__(
        self, total: int | Callable[[], int], unit: str, *, done: int = 0, title: str = ""
    ) -> None:
        self._lock = threading.Lock()
        self._bar: Any = None
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            how: dict[str, Any] = {"unit": f" {unit}", "leave": False, "dynamic_ncols": True}
            how["total"] = (total() if callable(total) else total) or None
            tqdm: Any = importlib.import_module("tqdm")
            self._bar = tqdm.tqdm(initial=done, desc=title or None, **how)

    def advance(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Stages(contextlib.ExitStack):
    """A bar for each stage in its turn."""

    _stage, _done = "", 0
    _bar: Bar | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done in ``stage``."""
        if self._bar is None or stage != self._stage:
            self.close()
            unit = "pairs" if stage == "compared" else "texts"
            self._bar = self.enter_context(Bar(total, unit, done=done, title=stage))
            self._stage, self._done = stage, done
        self._bar.advance(done - self._done)
        self._done = done


def lines_of(paths: Sequence[Path]) -> int:
    """Return how many lines there are in files, 0 where one is not plain or cannot be read."""
    count = 0
    try:
        for path in paths:
            if not path.is_file():
                return 0
            with path.open("rb") as file:
                end = b"\n"
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
                    end = block[-1:]
                count += end != b"\n"
    except OSError:
        return 0
    return count
