"""Other machines, reached by the system's ssh client: addresses, and commands that run there.

Host keys are checked as the user's own configuration says. Names of users and hosts are so narrow
that none can become an option of ssh or a word of a shell.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Thread, Timer
from typing import IO, Any

from asterisk.common.errors import UsageError
from asterisk.common.terminal import excerpt

SCHEME = "ssh://"
CONFIG = "ASTERISK_SSH_CONFIG"  # another configuration file than the user's own
CONNECT_SECONDS = 10
OPTIONS = (
    *("BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}", "ConnectionAttempts=1"),
    *("ServerAliveInterval=5", "ServerAliveCountMax=3"),
    *("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no"),
)
MOST_STDERR = 1 << 16  # bytes of it that are remembered
DRAIN_SECONDS = 2
_FAILED = 255  # the exit status of ssh's own failures
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORT = re.compile(r"[0-9]{1,5}")
_ADDRESS = re.compile(r"(?:([^@]*)@)?(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_WARNING = re.compile(r"Warning: Permanently added|^\*\* |^debug1|^mux_|^Killed by signal")
_FULL = re.compile(r"No space left on device|Wrote only \d+ of \d+ bytes|Disk quota exceeded")


class RemoteError(Exception):
    """A command on another machine failed; the message is one line."""


class Disconnected(RemoteError):
    """The connection failed, not the command."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where ssh finds a machine. Port 0 and no user are those that ssh's configuration names."""

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{SCHEME}{user}{host}{port}"


def parse(text: str) -> Address:
    """Parse ``ssh://user@host:port``; UsageError for anything else."""
    if not text.startswith(SCHEME):
        raise UsageError(f"{text!r} is no address: ssh://user@host or ssh://user@host:port")
    return after_scheme(text, text.removeprefix(SCHEME))


def after_scheme(text: str, address: str) -> Address:
    """Parse ``address``, the part of ``text`` that follows ``ssh://``; UsageError as `parse`."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UsageError(f"{text!r} is no address: ssh://user@host or ssh://user@host:port")
    user, host, port = parts.groups()
    if user is not None and not _USER.fullmatch(user):
        raise UsageError(f"{user!r} in {text!r} is no user's name")
    if port is not None and not (_PORT.fullmatch(port) and 1 <= int(port) < 1 << 16):
        raise UsageError(f"{port!r} in {text!r} is no port")
    if host.startswith("["):
        number, percent, zone = host[1:-1].partition("%")
        if percent and not _ZONE.fullmatch(zone):
            raise UsageError(f"{zone!r} in {text!r} is no zone of an IPv6 address")
        try:
            host = f"{ipaddress.IPv6Address(number)}{percent}{zone}"
        except ValueError:
            raise UsageError(f"{host!r} in {text!r} is no IPv6 address") from None
    elif not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} in {text!r} is no host's name")
    return Address(host, user or "", int(port or 0))


def arguments(target: Any, words: Sequence[str], config: str | None = None) -> list[str]:
    """Return the ssh command that runs ``words`` on ``target``; each stays one word there.

    ``target`` has the ``host``, ``user`` and ``port`` of an `Address`.
    """
    options = [part for option in OPTIONS for part in ("-o", option)]
    own = ["-F", config] if config else []
    user = ["-l", target.user] if target.user else []
    port = ["-p", str(target.port)] if target.port else []
    return ["ssh", *own, "-T", *options, *user, *port, "--", target.host, shlex.join(words)]


def run(
    target: Any,
    words: Sequence[str],
    *,
    timeout: float,
    limit: int,
    data: bytes = b"",
    source: IO[bytes] | None = None,
    follow: IO[bytes] | None = None,
) -> bytes:
    """Run ``words`` on ``target`` and return its output, at most ``limit`` bytes.

    Its input is the file ``source``, or else ``data`` and then the file ``follow``. After ``data``
    it stays open until the output has ended: its end says that nobody waits any more.
    Disconnected or RemoteError unless it exits with status 0 within ``timeout`` seconds.
    """
    command = arguments(target, words, os.environ.get(CONFIG))
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=source or pipe, stdout=pipe, stderr=pipe)
    except OSError as failure:
        raise Disconnected(f"no ssh client: {failure.strerror or failure}") from None
    deadline, timer = time.monotonic() + timeout, Timer(timeout, process.kill)
    errors = bytearray()
    # At the same time as the output: whoever fills one pipe never gets to the other.
    drain = Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    with process:
        try:
            timer.start()
            drain.start()
            if process.stdin is not None and data:
                with contextlib.suppress(BrokenPipeError):  # its own last words say more
                    process.stdin.write(data)
                    if follow is not None:
                        shutil.copyfileobj(follow, process.stdin)
                    process.stdin.flush()
            out = process.stdout.read(limit + 1) if process.stdout is not None else b""
            if len(out) > limit:
                raise RemoteError(f"answered with more than {limit} bytes")
            _close_input(process)
            status = process.wait()
            drain.join(DRAIN_SECONDS)  # a shared connection's master may keep it open
            late = time.monotonic() >= deadline
        finally:
            timer.cancel()
            process.kill()
            _close_input(process)
    if late:
        raise Disconnected(f"gave no answer in {timeout:g} s and was stopped")
    if status == 0:
        return out
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and not _WARNING.search(line)]
    if any(map(_FULL.search, lines)):
        raise RemoteError("its disk is full (No space left on device)")
    last = excerpt(lines[-1]) if lines else f"ended with status {status}"
    raise Disconnected(last) if status == _FAILED else RemoteError(last)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _drain(stream: IO[bytes], last: bytearray) -> None:
    """Read ``stream`` to its end; ``last`` gets the last `MOST_STDERR` bytes."""
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        while data := os.read(stream.fileno(), MOST_STDERR):
            last += data
            del last[:-MOST_STDERR]
