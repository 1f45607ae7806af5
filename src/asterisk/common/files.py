"""Files: written whole or not at all, and read with care where they come from outside.

A writer fills a file or folder beside its target, which it has locked (flock(2)), and then gives it
the target's name. What nobody has locked was left by a writer that was killed: the next one removes
it. What only writing needs is imported there: a device that only reads is spared 0.7 MB.

A link in a model folder may lead to a regular file within the folder, as in Kubernetes' ConfigMaps,
or within the ``blobs/`` of the same repository in Hugging Face's cache, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError, OutputError, UsageError

ARTIFACTS = Path("artifacts")  # where exports go by default
SHIPPED = "asterisk-256-wp"
LARGEST_JSON = 16 << 20
LARGEST_FILE = 4 << 30  # of weights, in bytes
_NEW, _OLD = ".new", ".old"


def cache_folder() -> Path:
    """Return the folder where everything downloaded is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "asterisk"


def shipped_checkpoint() -> Path:
    """Return the checkpoint that comes with the project; UsageError outside a clone of it."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[3]):
        candidate = folder / "checkpoints" / SHIPPED
        if (candidate / "model.safetensors").is_file():
            return candidate
    reason = f"no checkpoint given, and no checkpoints/{SHIPPED} here"
    raise UsageError(f"{reason}: name a checkpoint folder")


def check_replaceable(target: Path, ours: Callable[[Path], bool]) -> None:
    """Raise OutputError unless ``target`` is free, an empty folder, or one that is ``ours``."""
    if os.path.lexists(target) and not target.is_dir():
        raise OutputError(f"cannot write {target}: it is not a folder")
    if target.is_dir() and any(target.iterdir()) and not ours(target):
        raise OutputError(f"cannot write {target}: it holds something else, which is left alone")


@contextlib.contextmanager
def replacing_folder(target: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new folder beside ``target`` that replaces it, durably, on a clean exit.

    Only a folder that is ``ours`` is replaced; on any failure all stays as it was. OutputError if
    the file system fails.
    """
    target = Path(os.path.realpath(target))
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with _staged(target, folder=True) as new:
            check_replaceable(target, ours)
            yield new
            _settle(*new.rglob("*"), new)
            _swap(new, target)
            _sync(target.parent)
    finally:
        for folder in missing:  # empty, unless all went well
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a new file beside ``target`` that replaces it, durably, on a clean exit.

    A link is followed. OutputError if ``target`` exists and is not a plain file.
    """
    target = Path(os.path.realpath(target))
    with _staged(target, folder=False) as new:
        yield new
        _settle(new)
        new.replace(target)
        _sync(target.parent)


@contextlib.contextmanager
def _staged(target: Path, *, folder: bool) -> Iterator[Path]:
    """Yield a locked file or folder beside ``target``; remove what has its name in the end."""
    try:
        if folder:
            target.parent.mkdir(parents=True, exist_ok=True)
        elif target.exists() and not target.is_file():
            raise OutputError(f"cannot write {target}: it is not a plain file")
        _remove_abandoned(target)
        path, lock = _make_staging(target, folder)
        try:
            yield path
        finally:
            _remove(path)
            if lock is not None:
                os.close(lock)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror or failure}") from failure


def _make_staging(target: Path, folder: bool) -> tuple[Path, int | None]:
    """Return a new file or folder and the descriptor that locks it, where there are locks."""
    import tempfile

    while True:
        if folder:
            name = tempfile.mkdtemp(_NEW, _prefix(target), target.parent)
        else:
            handle, name = tempfile.mkstemp(_NEW, _prefix(target), target.parent)
            os.close(handle)
        path = Path(name)
        # Another writer may remove it before it is locked.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            try:
                if _lock(lock) and path.exists():
                    return path, lock
            except OSError:  # a file system without locks, where nobody removes it either
                os.close(lock)
                return path, None
            os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name[:100]}."


def _remove_abandoned(target: Path) -> None:
    # Exactly the names that tempfile makes from this target's.
    ours = re.compile(re.escape(_prefix(target)) + r"[a-z0-9_]{8}(\.new|\.old)")
    with contextlib.suppress(OSError):
        for path in sorted(target.parent.iterdir()):
            found = ours.fullmatch(path.name)
            if not found or path.is_symlink():
                continue
            with contextlib.suppress(OSError):
                lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    if not _lock(lock):
                        continue
                    if found[1] == _OLD and not os.path.lexists(target) and any(path.iterdir()):
                        path.rename(target)  # its writer was killed between two names
                    else:
                        _remove(path)
                finally:
                    os.close(lock)


def _lock(descriptor: int) -> bool:
    """Lock a file unless another process has; OSError where the file system has no locks."""
    if sys.platform == "win32":
        raise OSError(descriptor)
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> None:
    import shutil

    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _settle(*paths: Path) -> None:
    """Write ``paths`` to the disk, and let the umask decide who may read them."""
    mask = os.umask(0)
    os.umask(mask)
    for path in paths:  # some libraries write for the owner only
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        _sync(path)


def _swap(new: Path, target: Path) -> None:
    """Give ``new`` the target's name, in one step where the system can exchange names.

    After an exchange, the old target has the staging name and is removed with it.
    """
    if _exchange(new, target):
        return
    try:
        new.rename(target)  # free, or an empty folder
    except OSError:
        # Another writer was first, or the system cannot exchange names.
        if _exchange(new, target):
            return
        import tempfile

        old = Path(tempfile.mkdtemp(_OLD, _prefix(target), target.parent))
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        _remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names by Linux's renameat2(2); False where kernel or file system cannot."""
    try:
        import ctypes

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


def regular_file(folder: Path, name: str, largest: int) -> Path:
    """Return the path of ``name`` in ``folder``; ArtifactError unless it may be opened."""
    path = folder / name
    try:
        real = Path(os.path.realpath(path, strict=True))
        status = real.stat()
    except (OSError, ValueError):
        raise ArtifactError(f"{path} is missing") from None
    roots = [Path(os.path.realpath(folder))]
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - links keep their names
    snapshots = [it for it in absolute.parents if it.name == "snapshots"]
    roots += [Path(os.path.realpath(it.parent)) / "blobs" for it in snapshots[:1]]
    if not any(real.is_relative_to(root) for root in roots):
        raise ArtifactError(f"{path} is a link that leaves the folder")
    if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
        raise ArtifactError(f"{path} is not a plain file of at most {largest:,} bytes")
    return path


def subfolder(folder: Path, name: str) -> Path:
    """Return the folder ``name`` of ``folder``; ArtifactError if it is a link that leaves it."""
    if not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(f"{folder / name} is a link that leaves the folder")
    return folder / name


def has_file(folder: Path, name: str) -> bool:
    """Tell whether ``folder`` has an entry ``name``; a broken link counts."""
    return os.path.lexists(folder / name)


def read_bytes(folder: Path, name: str, largest: int = LARGEST_JSON) -> bytes:
    """Return the bytes of a file of at most ``largest``; ArtifactError otherwise."""
    path = regular_file(folder, name, largest)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise ArtifactError(f"cannot read {path}: {failure.strerror or failure}") from None


def read_json(folder: Path, name: str, largest: int = LARGEST_JSON) -> Any:
    """Return the contents of a JSON file; ArtifactError unless `strict_json` accepts them."""
    data = read_bytes(folder, name, largest)
    try:
        return strict_json(data)
    except ValueError as failure:
        reason = f": {failure}" if str(failure).startswith("the name") else ""
        raise ArtifactError(f"{folder / name} is not JSON{reason}") from None


def read_object(folder: Path, name: str, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Return a JSON object, as `read_json` does; an absent file is an empty object."""
    values = read_json(folder, name, largest) if has_file(folder, name) else {}
    if not isinstance(values, dict):
        raise ArtifactError(f"{folder / name} is not a JSON object")
    return values


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:  # readers differ in which one they believe
            raise ValueError(f"the name {ascii(name)[:100]} stands twice")
        values[name] = value
    return values


def _not_a_number(name: str) -> None:
    raise ValueError(name)


def strict_json(data: str | bytes | bytearray) -> Any:
    """Parse JSON; ValueError also for a repeated name, NaN, Infinity, or very deep nesting."""
    try:
        return json.loads(data, object_pairs_hook=_unambiguous, parse_constant=_not_a_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
