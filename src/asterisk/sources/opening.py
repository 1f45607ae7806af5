"""Plain files, opened without waiting and read no further than they were long then.

What gzip has compressed is unpacked into a temporary file first.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from asterisk.sources.document import Unreadable
from asterisk.sources.options import Options

TRIES = 3
GZIP = b"\x1f\x8b"


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
    """A file as readers see it; ``skip(where, reason)`` reports a part that gives no document.

    ``note(reason)`` tells what is read all the same, and how. ``flaw`` says why the file ends
    before its end, where it does.
    """

    descriptor: int
    size: int
    head: bytes
    options: Options
    skip: Callable[[str, str], None]
    note: Callable[[str], None]
    flaw: str = ""

    def whole(self, *, partial: bool = False) -> bytes:
        """Return all bytes, as they stood at one time.

        Unreadable if they are too many, or change while they are read, again and again, or, unless
        ``partial``, if the file has a flaw: a beginning would be found as if it were the whole.
        """
        if self.flaw and not partial:
            raise Unreadable(self.flaw)
        for _ in range(TRIES):
            before = os.fstat(self.descriptor)
            if before.st_size > self.options.largest_file:
                limit = self.options.largest_file / 1e6
                raise Unreadable(
                    f"{before.st_size / 1e6:,.1f} MB, more than {limit:,.1f} (see --max-file)"
                )
            with contextlib.suppress(Unreadable), self.stream(before.st_size) as stream:
                data = stream.read(before.st_size)
                now = os.fstat(self.descriptor)
                if (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns):
                    return data
        raise Unreadable("changes while it is read", passing=True)

    def stream(self, size: int | None = None) -> io.BufferedReader:
        """Return a reader from the beginning on that ends at the size of when it was opened.

        Reading raises Unreadable where the file has become shorter.
        """
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
        if not data and self.at < self.size:
            raise Unreadable("became shorter while it was read", passing=True)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


@contextlib.contextmanager
def opened(
    path: Path, options: Options, skip: Callable[[str, str], None], note: Callable[[str], None]
) -> Iterator[Opened]:
    """Open a plain file; Unreadable for anything that has taken its place, or by its error.

    One that gzip has compressed is unpacked. What a damaged one gives before its fault is read;
    then comes Unreadable.
    """
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
        file = Opened(descriptor, facts.st_size, os.pread(descriptor, 8192, 0), options, skip, note)
        if not file.head.startswith(GZIP):
            yield file
            return
        with file.stream() as packed, _unpacked(packed, options.largest_file) as (unpacked, flaw):
            inside, size = unpacked.fileno(), unpacked.tell()
            yield Opened(inside, size, os.pread(inside, 8192, 0), options, skip, note, flaw)
        if flaw:
            raise Unreadable(flaw)
    except OSError as failure:
        raise Unreadable(failure.strerror or str(failure), passing=True) from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _unpacked(packed: io.BufferedReader, limit: int) -> Iterator[tuple[IO[bytes], str]]:
    """Give a temporary file of what gzip has compressed, and what is wrong with it, or ""."""
    import gzip
    import tempfile
    import zlib

    flaw = ""
    with tempfile.TemporaryFile() as file, gzip.GzipFile(fileobj=packed) as reader:
        try:
            while chunk := reader.read1(1 << 16):
                if file.tell() + len(chunk) > limit:
                    raise Unreadable(f"more than {limit / 1e6:,.1f} MB unpacked (see --max-file)")
                file.write(chunk)
        except EOFError:
            flaw = "compressed by gzip, and cut off"
        except (gzip.BadGzipFile, zlib.error):
            flaw = "compressed by gzip, and damaged"
        if flaw and not file.tell():
            raise Unreadable(flaw)
        file.flush()
        yield file, flaw
