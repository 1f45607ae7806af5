"""What a person sees on a terminal: lines and bars of progress on standard error, foreign text."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

MOST_CHARACTERS = 300  # of a text that another machine sent
DEEPEST = 6
_JOINERS = "\u200c\u200d"  # letters of some scripts need them


def report(line: str) -> None:
    """Print a line of progress; a closed standard error is no failure."""
    with contextlib.suppress(OSError):
        if tqdm := sys.modules.get("tqdm"):  # which moves the bars out of the way
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)


class Bar:
    """A progress bar up to ``total``, 0 if unknown, which is erased at the end. Thread-safe.

    It is shown where tqdm is installed and standard error is a terminal. A ``total`` that is a
    function is called then.
    """

    def __init__(
        self, total: int | Callable[[], int], unit: str, *, initial: int = 0, title: str = ""
    ) -> None:
        self._lock = threading.Lock()
        self._bar: Any = None
        if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self._bar = tqdm(
                desc=title or None,
                total=(total() if callable(total) else total) or None,
                leave=False,
                unit=f" {unit}",
                dynamic_ncols=True,
                initial=initial,
            )

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Stages(contextlib.ExitStack):
    """One bar after the other, each for a stage of the work."""

    _stage, _position = "", 0
    _bar: Bar | None = None

    def __call__(self, stage: str, position: int, total: int) -> None:
        """Show ``position`` of ``total`` in ``stage``."""
        if self._bar is None or stage != self._stage:
            self.close()
            unit = "pairs" if stage == "compared" else "texts"
            self._bar = self.enter_context(Bar(total, unit, initial=position, title=stage))
            self._stage, self._position = stage, position
        self._bar.advance(position - self._position)
        self._position = position


def lines_of(paths: Sequence[Path]) -> int:
    """Return the number of lines in files; 0 if one is not a plain file or cannot be read."""
    count = 0
    with contextlib.suppress(OSError):
        for path in paths:
            if not path.is_file():
                return 0
            with path.open("rb") as file:
                end = b"\n"
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
                    end = block[-1:]
                count += end != b"\n"
        return count
    return 0


def printable(text: str) -> str:
    """Return ``text`` on one line, each run of white space and of invisible characters a space."""
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in text)
    return " ".join(text.split())


def excerpt(text: str) -> str:
    """Return the first `MOST_CHARACTERS` of ``text``, `printable`."""
    return printable(text[: 4 * MOST_CHARACTERS])[:MOST_CHARACTERS]


def plain(value: Any, depth: int = 0) -> Any:
    """Return JSON's ``value`` with an `excerpt` of each text; ValueError if it is too deep."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return excerpt(value)
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {excerpt(key): plain(item, depth + 1) for key, item in value.items()}
    return value


def escaped(text: str) -> str:
    """Return ``text`` with escapes for what does not print: different texts stay different."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
