"""Writing that leaves either the whole new thing or the old one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from asterisk.errors import OutputError


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give a fresh folder beside ``target`` that takes its place, durably, on a clean exit.

    On any failure the fresh folder is removed and ``target`` stays as it was; OutputError when
    the file system is what failed.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - a link given as target stays a link
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield staging
        staging.chmod(0o755)
        for path in staging.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # some libraries write for the owner only
            _sync(path)
        _sync(staging)
        _swap(staging, target)
        _sync(target.parent)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from failure
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` to write to; it takes its place, durably, on a clean exit."""
    target = Path(os.path.abspath(target))  # noqa: PTH100
    staging: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        staging = Path(name)
        yield staging
        staging.chmod(0o644)
        _sync(staging)
        staging.replace(target)
        _sync(target.parent)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from failure
    finally:
        if staging is not None:
            staging.unlink(missing_ok=True)


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` where ``target`` is, in one step where the system can exchange names."""
    if not target.exists():
        staging.rename(target)
        return
    if _exchange(staging, target):
        return  # what was the target is now the staging folder, and removed with it
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old)  # an empty folder may be renamed onto
    try:
        staging.rename(target)
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
