"""Plain files, opened without waiting and read no further than they were long then."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asterisk.sources.document import Unreadable
from asterisk.sources.options import Options

TRIES = 3


class Piece(NamedTuple):
    """What a reader finds: where it stands (for messages), its key or "", its title and text.

    ``date``, ``author`` and ``tags`` as `Document` has them.
    """

    where: str
    key: str
    title: str
    text: str
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()


@dataclass
class Opened:
    """A file as readers see it; ``skip(where, reason)`` reports a part that gives no document."""

    descriptor: int
    size: int
    head: bytes
    options: Options
    skip: Callable[[str, str], None]

    def whole(self) -> bytes:
        """Return all bytes, as they stood at one time.

        Unreadable if they are too many, or change while they are read, again and again.
        """
        for _ in range(TRIES):
            before = os.fstat(self.descriptor)
            if before.st_size > self.options.largest_file:
                limit = self.options.largest_file / 1e6
                raise Unreadable(
                    f"{before.st_size / 1e6:,.1f} MB, more than {limit:,.1f} (see --max-file)"
                )
            data = self._bytes(before.st_size)
            if len(data) == before.st_size and _same(before, os.fstat(self.descriptor)):
                return data
        raise Unreadable("changes while it is read", passing=True)

    def _bytes(self, size: int) -> bytes:
        with self.stream(size) as stream:
            return stream.read(size)

    def stream(self, size: int | None = None) -> io.BufferedReader:
        """Return a reader from the beginning on that ends at the size of when it was opened."""
        return io.BufferedReader(_Window(self.descriptor, self.size if size is None else size))


class _Window(io.RawIOBase):
    """The first bytes of a descriptor, read by position."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__()
        self.descriptor, self.size, self.at = descriptor, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self.descriptor, min(len(buffer), self.size - self.at), self.at)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


@contextlib.contextmanager
def opened(path: Path, options: Options, skip: Callable[[str, str], None]) -> Iterator[Opened]:
    """Open a plain file; Unreadable for anything that has taken its place, or by its error."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a FIFO would wait
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else None
        raise Unreadable(reason or str(failure), passing=True) from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise Unreadable("not a file any more")
        head = os.pread(descriptor, 8192, 0)
        yield Opened(descriptor, facts.st_size, head, options, skip)
    except OSError as failure:
        raise Unreadable(failure.strerror or str(failure), passing=True) from None
    finally:
        os.close(descriptor)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
