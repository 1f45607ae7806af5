"""One writer at a time, by a locked file beside the index."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asterisk.common.errors import OutputError

if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        """Take nothing: SQLite's own lock still keeps each batch whole."""
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class WriterLock:
    """The lock of ``path``, held until it is released or the process ends, however it ends.

    SQLite's own locks last for one transaction, and an update is many. OutputError where another
    process has it, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + "-lock")
        self._descriptor = -1
        while self._descriptor < 0:
            self._descriptor = self._take(path)

    def _take(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as failure:
            raise OutputError(f"cannot write {path}: {failure.strerror or failure}") from None
        try:
            _lock(descriptor)
            # Whoever had it may have removed the file in between: the lock must be on the name.
            if os.path.samestat(os.fstat(descriptor), os.lstat(self.path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise OutputError(f"{path} is being written by another process; try again") from None
        except OSError:
            return descriptor  # a file system without locks
        os.close(descriptor)
        return -1

    def release(self) -> None:
        """Remove the file, then let go."""
        if self._descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
