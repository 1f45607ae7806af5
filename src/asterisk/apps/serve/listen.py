"""The socket that a server listens on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from asterisk.common.errors import UsageError

BACKLOG = 1024  # connections that wait to be accepted
LOOPBACK = ("127.", "::1")

Identity = tuple[int, int, int]
"""A file's device, inode and time of modification, which a socket has from its birth."""


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a TCP socket bound to the address; UsageError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        it = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as failure:
        raise UsageError(f"cannot listen on {host}: {_why(failure)}") from None
    try:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind(address)
        it.listen(BACKLOG)  # two may bind one address: only the first of them may listen
    except OSError as failure:
        it.close()
        raise UsageError(f"cannot listen on {host} port {port}: {_why(failure)}") from None
    return it


def bind_unix(path: Path) -> socket.socket:
    """Return a Unix socket at ``path`` for this user only; UsageError where that cannot be.

    What a server that was killed has left there is replaced.
    """
    it = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        if _is_left_over(path):
            path.unlink()
        it.bind(str(path))
        it.listen(BACKLOG)
    except OSError as failure:
        it.close()
        raise UsageError(f"cannot listen on {path}: {_why(failure)}") from None
    finally:
        os.umask(mask)
    return it


def identity_of(path: Path) -> Identity | None:
    """Return what tells the socket at ``path`` from one that took its place, None if none is."""
    with contextlib.suppress(OSError):
        it = path.lstat()
        # The number of a socket that is gone may be given to the next, and a chmod changes ctime.
        return it.st_dev, it.st_ino, it.st_mtime_ns
    return None


def remove(path: Path, identity: Identity | None) -> None:
    """Remove the socket at ``path`` if it is still the one with this identity."""
    if identity is not None and identity_of(path) == identity:
        path.unlink(missing_ok=True)


def is_local(address: str) -> bool:
    """Tell whether only this machine reaches the numeric ``address``."""
    return address.startswith(LOOPBACK)


def _is_left_over(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as it:
                return it.connect_ex(str(path)) == errno.ECONNREFUSED
    return False


def _why(failure: Exception) -> str:
    return str(getattr(failure, "strerror", None) or failure)
