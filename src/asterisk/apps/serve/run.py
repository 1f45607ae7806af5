"""The server's process, from its socket to its end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from asterisk.apps.serve.api import Rules
from asterisk.apps.serve.app import Served, Service, application
from asterisk.apps.serve.jobs import Workers
from asterisk.apps.serve.limits import Limits
from asterisk.apps.serve.listen import BACKLOG
from asterisk.apps.serve.metrics import Metrics
from asterisk.apps.serve.notify import notify
from asterisk.common.terminal import report as tell
from asterisk.runtimes.runtime import OnLong, Runtime

MOST_HEAD = 64 << 10  # bytes of a request's head that is not whole yet
_RESERVED = 96  # descriptors for what is no connection, or one that is being refused
_ACCEPTED = 8  # connections at a time, so that those too many are closed before more come
_LAST = 0.5  # seconds for the end itself, whatever is left of the grace
_SWEEP = 0.25  # seconds between two looks at the connections
_SWITCH = 0.0005  # seconds: a worker that waits for the interpreter is a request that waits


def serve(
    runtime: Runtime,
    listener: socket.socket,
    served: Served,
    limits: Limits,
    *,
    threads: int,
    on_long: OnLong,
) -> int:
    """Serve until a signal says stop; return the exit status: 0, or 130 for an interrupt."""
    limits = replace(limits, connections=_connections(limits.connections))
    sys.setswitchinterval(_SWITCH)
    signals: list[int] = []
    # uvicorn has handlers of its own for the first two while it runs, and raises them afterwards.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))

    async def main() -> None:
        about = {"model": served.models[0], "format": served.format}
        metrics = Metrics({**about, "fingerprint": served.fingerprint})
        workers = Workers(runtime, threads, limits.queue, on_long)
        service = Service(workers, served, _rules(runtime, served, limits), limits, metrics)
        server = Server(_config(service, limits))
        service.connections = lambda: len(server.server_state.connections)
        metrics.gauge("asterisk_connections", "Open connections.", service.connections)
        asyncio.get_running_loop().set_exception_handler(_print_failure)
        supervisor = asyncio.ensure_future(_supervise(server, listener, limits, metrics, signals))
        await server.serve(sockets=[listener])
        await supervisor
        if tasks := list(server.server_state.tasks):
            for task in tasks:
                task.cancel()  # it answers 503 if its answer has not begun
            await asyncio.wait(tasks, timeout=_LAST)
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # which closes them
        if service.cut_short:
            tell(f"asterisk-serve: {service.cut_short} requests were cut short")
        if workers.close(_LAST):
            runtime.close()

    asyncio.run(main())
    return 130 if signal.SIGINT in signals else 0


def _rules(runtime: Runtime, served: Served, limits: Limits) -> Rules:
    tokenizer = runtime.tokenizer
    padding = () if tokenizer.pad_id is None else (tokenizer.pad_id,)
    return Rules(
        models=served.models,
        dimensions=runtime.config.embedding_size,
        tokens=tokenizer.vocab_size,
        texts=limits.texts,
        special=frozenset((*padding, *tokenizer.prefix, *tokenizer.suffix)),
        prompts=runtime.prompts,
        default_prompt=runtime.prompt(),
        strict=served.strict,
        token_ids=served.token_ids,
    )


def _config(service: Service, limits: Limits) -> Config:
    return Config(
        application(service),
        http="h11",  # uvicorn's other reader drops the body of a request for HTTP/2
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # the application tells what goes wrong
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_ACCEPTED,
        timeout_keep_alive=int(limits.idle),
        timeout_graceful_shutdown=limits.grace,
        h11_max_incomplete_event_size=MOST_HEAD,
    )


async def _supervise(
    server: Server, listener: socket.socket, limits: Limits, metrics: Metrics, signals: list[int]
) -> None:
    """Tell the service manager how it is, and let go of clients that do nothing."""
    while not (server.started or server.should_exit):
        await asyncio.sleep(0)
    listener.listen(BACKLOG)  # asyncio takes one number for both
    notify("READY=1")
    seen: dict[Any, tuple[float, int]] = {}
    while not server.should_exit:
        sweep(server.server_state.connections, seen, limits.arrival, metrics)
        await asyncio.sleep(_SWEEP)
        server.should_exit = server.should_exit or bool(signals)
    notify("STOPPING=1")


def sweep(
    connections: set[Any], seen: dict[Any, tuple[float, int]], patience: float, metrics: Metrics
) -> None:
    """Cut connections whose client has done nothing for ``patience`` seconds.

    uvicorn waits for ever for the head of a request once its first byte, or none at all, is there,
    and for a client to read. ``seen`` is when each connection was last seen to go on, by
    `time.monotonic`, and how many bytes of answers it had not taken then.
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


def _connections(wanted: int) -> int:
    """Return how many connections there are descriptors for, having asked for enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(min(wanted, soft - _RESERVED), 1)


def _print_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Print one line where asyncio would print a stack: a client's doing, most often."""
    failure = context.get("exception")
    tell(f"asterisk-serve: {context.get('message')}: {failure!r}")
