"""Writing that leaves either the whole new thing or the old one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from asterisk.common.errors import OutputError
from asterisk.common.staging import Staging


def check_replaceable(target: Path, ours: Callable[[Path], bool]) -> None:
    """Raise OutputError unless ``target`` is free, an empty folder, or one that is ``ours``."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"cannot write {target}: it is not a folder")
    if any(target.iterdir()) and not ours(target):
        raise OutputError(f"cannot write {target}: it holds something else, which is left alone")


@contextlib.contextmanager
def replacing_folder(target: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a fresh folder beside ``target`` that takes its place, durably, on a clean exit.

    Only a folder that is ``ours`` is replaced. On any failure the fresh folder is removed, as are
    parents that were made for it, and ``target`` stays as it was; OutputError when the file system
    is what failed. What a killed writer has left beside ``target`` is removed first.
    """
    target = Path(os.path.realpath(target))
    staging: Staging | None = None
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Staging.folder(target)
        check_replaceable(target, ours)
        yield staging.path
        mask = _mask()
        staging.path.chmod(0o777 & ~mask)
        for path in staging.path.rglob("*"):  # some libraries write for the owner only
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
            _sync(path)
        _sync(staging.path)
        _swap(staging, target)
        _sync(target.parent)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from failure
    finally:
        if staging is not None:
            staging.remove()
        for folder in missing:  # empty, unless all went well
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; it takes its place, durably, on a clean exit.

    A link is followed; what is neither free nor a plain file is refused with OutputError.
    """
    target = Path(os.path.realpath(target))
    staging: Staging | None = None
    try:
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {target}: it is not a plain file")
        staging = Staging.file(target)
        yield staging.path
        staging.path.chmod(0o666 & ~_mask())
        _sync(staging.path)
        staging.path.replace(target)
        _sync(target.parent)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from failure
    finally:
        if staging is not None:
            staging.remove()


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _swap(staging: Staging, target: Path) -> None:
    """Put the staged folder where ``target`` is, in one step where the system can exchange names.

    After an exchange, what was the target has the staging folder's name, and is removed with it.
    """
    new = staging.path
    if _exchange(new, target):
        return
    try:
        new.rename(target)  # free, or an empty folder
    except OSError:
        # Another writer was first, or the system cannot exchange names.
        if _exchange(new, target):
            return
        old = staging.put_aside(target)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names by Linux's renameat2(2); False where kernel or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
