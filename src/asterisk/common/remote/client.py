"""The system's ssh client: how it is called, and what it may cost. Standard library only.

Host keys are checked as the user's own configuration says; nothing here turns that off.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from threading import Thread, Timer
from typing import IO, Protocol

from asterisk.common.remote.printable import printable

CONFIG = "ASTERISK_SSH_CONFIG"  # another configuration file than the user's own
CONNECT_SECONDS = 10
OPTIONS = (
    *("BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}", "ConnectionAttempts=1"),
    *("ServerAliveInterval=5", "ServerAliveCountMax=3"),
    *("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no"),
)
LOST = 255  # ssh's own failures
MOST_NOISE = 1 << 16
DRAIN_SECONDS = 2
_WARNING = re.compile(r"Warning: Permanently added|^\*\* |^debug1|^mux_|^Killed by signal")

_FULL = re.compile(r"No space left on device|Wrote only \d+ of \d+ bytes|Disk quota exceeded")


class RemoteError(Exception):
    """What ran over a connection failed; the message is one line."""


class Disconnected(RemoteError):
    """The connection, not what ran over it, failed."""


class Place(Protocol):
    """What ssh needs to know of a machine; port 0 and no user are those of its configuration."""

    @property
    def host(self) -> str:
        """A host's name or address that no shell and no option can be made of."""
        ...

    @property
    def user(self) -> str:
        """A user's name."""
        ...

    @property
    def port(self) -> int:
        """A port."""
        ...


def arguments(target: Place, words: Sequence[str], config: str | None = None) -> list[str]:
    """Return the ssh command that runs ``words`` on ``target``, each of them one word there too."""
    options = [part for option in OPTIONS for part in ("-o", option)]
    own = ["-F", config] if config else []
    user = ["-l", target.user] if target.user else []
    port = ["-p", str(target.port)] if target.port else []
    return ["ssh", *own, "-T", *options, *user, *port, "--", target.host, shlex.join(words)]


def run(
    target: Place,
    words: Sequence[str],
    *,
    timeout: float,
    limit: int,
    data: bytes = b"",
    source: IO[bytes] | None = None,
    follow: IO[bytes] | None = None,
) -> bytes:
    """Run ``words`` there and return at most ``limit`` bytes of what they print.

    ``data``, or else what ``source`` holds, is their input. With ``data``, which what ``follow``
    holds may follow, the connection's input stays open until the answer is there: its end tells
    the other side that nobody waits any more. Disconnected or RemoteError, one line, for anything
    but a clean end within ``timeout`` seconds.
    """
    command = arguments(target, words, os.environ.get(CONFIG))
    late = False
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=source or pipe, stdout=pipe, stderr=pipe)
    except OSError as failure:
        raise Disconnected(f"no ssh client: {failure.strerror or failure}") from None

    def stop() -> None:
        nonlocal late
        late = True
        process.kill()

    timer = Timer(timeout, stop)
    noise = bytearray()
    # At the same time as the answer: whoever fills one pipe never gets to the other.
    drain = Thread(target=_drain, args=(process.stderr, noise), daemon=True)
    with process:
        try:
            timer.start()
            drain.start()
            _send(process, data, follow)
            out = _read(process.stdout, limit + 1)
            if len(out) > limit:
                raise RemoteError(f"answered with more than {limit} bytes")
            if process.stdin is not None:
                _close(process.stdin)
            status = process.wait()
            drain.join(DRAIN_SECONDS)  # a shared connection's master may keep it open
        finally:
            timer.cancel()
            process.kill()
            if process.stdin is not None:
                _close(process.stdin)
    if late:
        raise Disconnected(f"gave no answer in {timeout:g} s and was stopped")
    if status:
        raise _failure(status, bytes(noise))
    return out


def _send(process: subprocess.Popen[bytes], data: bytes, follow: IO[bytes] | None) -> None:
    if process.stdin is None or not data:
        return
    with contextlib.suppress(BrokenPipeError):  # what it says on its way out tells more
        process.stdin.write(data)
        if follow is not None:
            shutil.copyfileobj(follow, process.stdin)
        process.stdin.flush()


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def _read(stream: IO[bytes] | None, limit: int) -> bytes:
    return stream.read(limit) if stream is not None else b""


def _drain(stream: IO[bytes] | None, kept: bytearray) -> None:
    """Read ``stream`` to its end and leave the last `MOST_NOISE` bytes of it in ``kept``."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        while data := os.read(stream.fileno(), MOST_NOISE):
            kept += data
            del kept[:-MOST_NOISE]


def _failure(status: int, noise: bytes) -> RemoteError:
    lines = [line.strip() for line in noise.decode("utf-8", "replace").splitlines()]
    told = [line for line in lines if line and not _WARNING.search(line)]
    if any(map(_FULL.search, told)):
        return RemoteError("its disk is full (No space left on device)")
    last = printable(told[-1]) if told else f"ended with status {status}"
    return Disconnected(last) if status == LOST else RemoteError(last)
