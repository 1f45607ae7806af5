"""The server's process, from its socket and its token to its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from asterisk.apps.serve.api import Rules
from asterisk.apps.serve.app import application
from asterisk.apps.serve.limits import Limits
from asterisk.apps.serve.service import Metrics, Service, Workers
from asterisk.common.errors import UsageError
from asterisk.common.terminal import report
from asterisk.runtimes.runtime import OnLong, Runtime

BACKLOG = 1024  # connections that wait to be accepted
LONGEST_HEAD = 64 << 10  # bytes of a request's head that is not whole yet
LONGEST_TOKEN = 4096  # bytes
_RESERVED = 96  # descriptors for what is no connection, or one that is being refused
_ACCEPTED = 8  # connections at a time, so that those too many are closed before more come
_LAST = 0.5  # seconds for the end itself, whatever is left of the grace
_SWEEP = 0.25  # seconds between two looks at the connections
_SWITCH = 0.0005  # seconds: a worker that waits for the interpreter is a request that waits


def serve(
    runtime: Runtime,
    listener: socket.socket,
    limits: Limits,
    models: Sequence[str],
    *,
    threads: int,
    on_long: OnLong,
    token: bytes | None = None,
    cors_origins: Sequence[str] = (),
    strict: bool = False,
    token_ids: bool = False,
) -> int:
    """Serve until a signal says stop; return the exit status: 0, or 130 for an interrupt.

    See `Rules` and `application`; ``threads`` embed, and ``on_long`` is for requests without it.
    """
    tokenizer = runtime.tokenizer
    special = (tokenizer.pad_id, *tokenizer.prefix, *tokenizer.suffix)
    rules = Rules(
        models=models,
        dimensions=runtime.config.embedding_size,
        tokens=tokenizer.vocab_size,
        texts=limits.texts,
        special=frozenset(number for number in special if number is not None),
        prompts=runtime.prompts,
        default_prompt=runtime.prompt(),
        strict=strict,
        token_ids=token_ids,
    )
    limits = replace(limits, connections=_connections(limits.connections))
    sys.setswitchinterval(_SWITCH)
    signals: list[int] = []
    # uvicorn has handlers of its own for the first two while it runs, and raises them afterwards.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))

    async def main() -> None:
        about = {"model": models[0], "format": runtime.format, "fingerprint": runtime.fingerprint}
        metrics = Metrics(about)
        workers = Workers(runtime, threads, limits.queue, on_long)
        service = Service(workers, rules, limits, metrics)
        config = Config(
            application(service, token, cors_origins),
            http="h11",  # uvicorn's other reader drops the body of a request for HTTP/2
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # the application reports what goes wrong
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_ACCEPTED,
            timeout_keep_alive=int(limits.idle),
            timeout_graceful_shutdown=limits.grace,
            h11_max_incomplete_event_size=LONGEST_HEAD,
        )
        server = Server(config)
        state = server.server_state
        service.connections = lambda: len(state.connections)
        metrics.gauge("asterisk_connections", "Open connections.", service.connections)
        asyncio.get_running_loop().set_exception_handler(_print_failure)
        supervisor = asyncio.ensure_future(_supervise(server, listener, limits, metrics, signals))
        await server.serve(sockets=[listener])
        await supervisor
        if tasks := list(state.tasks):
            for task in tasks:
                task.cancel()  # it answers 503 if its answer has not begun
            await asyncio.wait(tasks, timeout=_LAST)
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # which closes them
        if service.cut_short:
            report(f"asterisk-serve: {service.cut_short} requests were cut short")
        if workers.close(_LAST):
            runtime.close()

    asyncio.run(main())
    return 130 if signal.SIGINT in signals else 0


async def _supervise(
    server: Server, listener: socket.socket, limits: Limits, metrics: Metrics, signals: list[int]
) -> None:
    """Report to the service manager, and let go of clients that do nothing."""
    while not (server.started or server.should_exit):
        await asyncio.sleep(0)
    listener.listen(BACKLOG)  # asyncio takes one number for both
    _notify("READY=1")
    seen: dict[Any, tuple[float, int]] = {}
    while not server.should_exit:
        _sweep(server.server_state.connections, seen, limits.arrival, metrics)
        await asyncio.sleep(_SWEEP)
        server.should_exit = server.should_exit or bool(signals)
    _notify("STOPPING=1")


def _sweep(
    connections: set[Any], seen: dict[Any, tuple[float, int]], patience: float, metrics: Metrics
) -> None:
    """Cut connections whose client has done nothing for ``patience`` seconds.

    uvicorn itself waits for ever for a request's head and for a client to read. ``seen`` is when
    each connection was last seen to go on, and how many bytes of answers it had not taken then.
    """
    now = time.monotonic()
    for it in seen.keys() - connections:
        del seen[it]
    for it in list(connections):
        unsent = it.transport.get_write_buffer_size()
        at_rest = it.cycle is None or it.cycle.response_complete
        waits = unsent or (at_rest and it.timeout_keep_alive_task is None)
        since, before = seen.setdefault(it, (now, unsent))
        if not waits or unsent != before:
            seen[it] = now, unsent
        elif now - since > patience:
            metrics.rejected.labels("unread" if unsent else "slow").inc()
            it.transport.abort()


def _notify(state: str) -> None:
    """Send ``state`` to systemd, if it started this process; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as it:
            it.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            it.sendall(state.encode())


def _connections(wanted: int) -> int:
    """Return how many connections there are descriptors for, having asked for enough."""
    kind, needed = resource.RLIMIT_NOFILE, wanted + _RESERVED
    soft, hard = resource.getrlimit(kind)
    if soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, hard))
    return max(min(wanted, resource.getrlimit(kind)[0] - _RESERVED), 1)


def _print_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Print one line where asyncio would print a stack: a client's doing, most often."""
    failure = context.get("exception")
    report(f"asterisk-serve: {context.get('message')}: {failure!r}")


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a TCP socket that listens on the address; UsageError if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        it = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as failure:
        raise _cannot_listen(host, failure) from None
    try:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind(address)
        it.listen(BACKLOG)  # two may bind one address: only the first of them may listen
    except OSError as failure:
        it.close()
        raise _cannot_listen(f"{host} port {port}", failure) from None
    return it


def _cannot_listen(where: object, failure: Exception) -> UsageError:
    reason = getattr(failure, "strerror", None) or failure
    return UsageError(f"cannot listen on {where}: {reason}")


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Give a Unix socket that listens at ``path``, for this user only; UsageError if it cannot.

    One that a killed server has left is replaced. In the end the path is removed, unless another
    server has taken it over.
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
        raise _cannot_listen(path, failure) from None
    finally:
        os.umask(mask)
    identity = _identity(path)
    try:
        with it:
            yield it
    finally:
        if identity and _identity(path) == identity:
            path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells the socket at ``path`` from one that replaced it, None if there is none."""
    try:
        it = path.lstat()
    except OSError:
        return None
    # The number of a socket that is gone may be given to the next, and a chmod changes ctime.
    return it.st_dev, it.st_ino, it.st_mtime_ns


def _is_left_over(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as it:
                return it.connect_ex(str(path)) == errno.ECONNREFUSED
    return False


def read_token(path: Path) -> bytes:
    """Return the bearer token in ``path``, without the white space around it.

    UsageError unless the file is regular, belongs to this user or root, and gives others no
    permission at all.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        raise UsageError(f"{path}: {failure.strerror}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a plain file")
        if status.st_uid not in (0, os.geteuid()):
            raise UsageError(f"{path} belongs to another user")
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        credential = folder and path.resolve().parent == Path(folder).resolve()
        # Of a systemd credential the group's bit is the mask of the access list that lets the
        # service's own user in.
        allowed = 0o740 if status.st_uid == 0 and credential else 0o700
        if stat.S_IMODE(status.st_mode) & ~allowed:
            raise UsageError(f"{path} must be private: chmod 600 {path}")
        token = os.read(file, LONGEST_TOKEN + 1)
    finally:
        os.close(file)
    if len(token) > LONGEST_TOKEN:
        raise UsageError(f"{path} has more than {LONGEST_TOKEN} bytes")
    token = token.strip()
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise UsageError(f"{path} must hold one token of printable ASCII")
    return token
