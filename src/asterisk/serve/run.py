"""The server's process, from its socket to its end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from asterisk.progress import tell
from asterisk.runtimes.runtime import OnLong, Runtime
from asterisk.serve.api import Rules
from asterisk.serve.app import App, Served
from asterisk.serve.http import Protocol, sweep
from asterisk.serve.jobs import Workers
from asterisk.serve.limits import Limits
from asterisk.serve.listen import BACKLOG
from asterisk.serve.metrics import Metrics
from asterisk.serve.notify import notify

_RESERVED = 96  # descriptors for what is no connection, or one that is being refused
_ACCEPTED = 8  # connections at a time, so that those too many are closed before more come
_LAST = 0.5  # seconds for the end itself, whatever is left of the grace
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
    metrics = Metrics()

    async def main() -> int:
        workers = Workers(runtime, threads, limits.queue, on_long)
        rules = _rules(runtime, served, limits)
        app = App(workers, served, rules, limits, metrics)
        server = _server(app, limits, metrics)
        app.connections = lambda: len(server.server_state.connections)
        asyncio.get_running_loop().set_exception_handler(_tell_failure)
        await server.serve(sockets=[listener])
        if workers.close(_LAST if server.cut_short else max(server.left(), _LAST)):
            runtime.close()
        return server.status

    return asyncio.run(main())


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
    )


class _Server(Server):  # type: ignore[misc]  # lint knows no uvicorn
    """uvicorn's, which stops without cutting off what is under way."""

    app: App
    limits: Limits
    force_exit: bool
    should_exit: bool
    status = 0
    cut_short = False
    end = 0.0  # of the grace, by the loop's clock

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio takes one number for both
        notify("READY=1")

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            sweep(self.server_state.connections, asyncio.get_running_loop().time())
        stop: bool = await super().on_tick(counter)
        return stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify("STOPPING=1")
        self.app.draining = True  # each connection's next answer is its last
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        state = self.server_state
        loop = asyncio.get_running_loop()
        end = self.end = loop.time() + self.limits.grace
        while state.tasks and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        for connection in list(state.connections):
            connection.shutdown()
        while state.connections and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        self.cut_short = bool(state.tasks)
        if self.cut_short:
            tell(f"asterisk-serve: {len(state.tasks)} requests were cut short")
        for connection in list(state.connections):
            connection.cut()
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()  # it answers 503 if its answer has not begun
        await asyncio.sleep(0)
        for connection in list(state.connections):
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST)

    def left(self) -> float:
        """Return the seconds left of the grace."""
        return self.end - asyncio.get_running_loop().time()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, _: object) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.status = 130 if sig == signal.SIGINT else 0


def _server(app: App, limits: Limits, metrics: Metrics) -> _Server:
    connection = type("Connection", (Protocol,), {"limits": limits, "metrics": metrics})
    config = Config(
        app,
        http=connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_ACCEPTED,
        timeout_keep_alive=int(limits.idle),
    )
    server = _Server(config)
    server.app = app
    server.limits = limits
    return server


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


def _tell_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Print one line where asyncio would print a stack: a client's doing, most often."""
    failure = context.get("exception")
    tell(f"asterisk-serve: {context.get('message')}: {failure!r}")
