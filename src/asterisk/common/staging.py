"""Names beside a target for what is being written, and the removal of what killed writers left.

A writer holds a lock (flock(2)) on what it stages. The system releases it however the writer ends,
so that what nobody holds is what nobody will finish.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        """Fail, as on a file system without locks: nothing that was left is removed."""
        raise OSError(descriptor)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_NEW, _OLD = ".new", ".old"


class Staging:
    """A locked file or folder beside the target, to be renamed to it or removed."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def folder(cls, target: Path) -> Staging:
        """Make a folder to fill, after what killed writers of ``target`` left has been removed."""
        _tidy(target)
        return cls._make(target)

    @classmethod
    def file(cls, target: Path) -> Staging:
        """Make a file to write, after what killed writers of ``target`` left has been removed."""
        _tidy(target)
        return cls._make(target, file=True)

    @classmethod
    def _make(cls, target: Path, file: bool = False) -> Staging:
        while True:
            if file:
                handle, name = tempfile.mkstemp(_NEW, _prefix(target), target.parent)
                os.close(handle)
            else:
                name = tempfile.mkdtemp(_NEW, _prefix(target), target.parent)
            path = Path(name)
            with contextlib.suppress(FileNotFoundError):  # a tidier was quicker and removed it
                lock = os.open(path, os.O_RDONLY)
                try:
                    if _locked(lock) and path.exists():
                        return cls(path, lock)
                except OSError:  # a file system without locks, where nobody tidies either
                    os.close(lock)
                    return cls(path, None)
                os.close(lock)

    def put_aside(self, target: Path) -> Path:
        """Rename ``target`` to a name from which a later writer restores or removes it."""
        old = Path(tempfile.mkdtemp(_OLD, _prefix(target), target.parent))
        target.rename(old)
        return old

    def remove(self) -> None:
        """Remove what still has the staged name, and let go of the lock."""
        _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _prefix(target: Path) -> str:
    return f".{target.name[:100]}."


def _tidy(target: Path) -> None:
    # Exactly the names that tempfile makes from this target's.
    ours = re.compile(re.escape(_prefix(target)) + r"[a-z0-9_]{8}(\.new|\.old)")
    with contextlib.suppress(OSError):
        for path in sorted(target.parent.iterdir()):
            if (found := ours.fullmatch(path.name)) and not path.is_symlink():
                _tidy_one(path, target, found[1])


def _tidy_one(path: Path, target: Path, kind: str) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not _locked(lock):
                return
            if kind == _OLD and not os.path.lexists(target) and any(path.iterdir()):
                path.rename(target)  # its writer was killed between two names
            else:
                _remove(path)
        finally:
            os.close(lock)


def _locked(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
