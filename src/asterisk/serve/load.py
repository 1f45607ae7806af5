"""Requests at a fixed rate, to see what a server holds.

``python -m asterisk.serve.load URL --rate 1000 --seconds 10 --connections 32 --pid PID``

An open loop: each request has a time at which it is meant to leave, whatever became of those
before, and its latency counts from then. So a server that stands still for a second has a thousand
slow requests and not one ("coordinated omission"; Tene, "How NOT to Measure Latency", 2015).
With the server's process id, its memory and its CPU time are measured and printed, too.
Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from asterisk.serve.process_monitor import ProcessMonitor

# One token each with a space before it, in GPT-2's vocabulary.
WORDS = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot
right study
""".split()  # noqa: SIM905
_SETTLE = 30.0  # seconds that answers have after the last request has left


@dataclass
class Outcome:
    """What came of a run: seconds from intended start to whole answer, errors by kind."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    late: float = 0.0  # most seconds by which this program itself handed a request on too late

    def percentile(self, share: float) -> float:
        """Return the latency that ``share`` of the answers stayed within."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def __str__(self) -> str:
        rate = len(self.seconds) / self.elapsed
        line = f"{rate:.1f} requests/s, {self.errors.total()} errors"
        if self.seconds:
            marks = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)]
            line += "".join(f", {name} {self.percentile(q) * 1e3:.2f} ms" for name, q in marks)
        line += f", generator late by {self.late * 1e3:.2f} ms at most"
        return line + "".join(f"\n{count} x {what}" for what, count in self.errors.most_common())


class _Run:
    def __init__(self, requests: Sequence[bytes], rate: float, seconds: float) -> None:
        self.requests = requests
        self.total = round(rate * seconds)
        self.rate = rate
        self.outcome = Outcome()
        self.due: deque[tuple[int, float]] = deque()  # left no connection to leave on
        self.idle: deque[_Connection] = deque()
        self.left = self.total
        self.done = asyncio.Event()
        self.begin = 0.0

    async def pace(self) -> None:
        self.begin = time.perf_counter() + 0.05
        sent = 0
        while sent < self.total:
            now = time.perf_counter()
            while sent < self.total and (meant := self.begin + sent / self.rate) <= now:
                self.outcome.late = max(self.outcome.late, now - meant)
                self.start(sent, meant)
                sent += 1
            if sent < self.total:
                await asyncio.sleep(max(self.begin + sent / self.rate - time.perf_counter(), 0))

    def start(self, number: int, meant: float) -> None:
        if self.idle:
            self.idle.popleft().send(self.requests[number % len(self.requests)], meant)
        else:
            self.due.append((number, meant))

    def ended(self, error: str | None, meant: float) -> None:
        now = time.perf_counter()
        if error is None:
            self.outcome.seconds.append(now - meant)
        else:
            self.outcome.errors[error] += 1
        self.left -= 1
        self.outcome.elapsed = now - self.begin
        if not self.left:
            self.done.set()

    def free(self, connection: _Connection) -> None:
        if self.due:
            number, meant = self.due.popleft()
            connection.send(self.requests[number % len(self.requests)], meant)
        else:
            self.idle.append(connection)


class _Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time; made anew when the server closes it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._meant: float | None = None
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._run.free(self)

    def send(self, request: bytes, meant: float) -> None:
        self._meant = meant
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0 or self._meant is None:
            return
        head = bytes(self._got[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self._got) < end + 4 + length:
            return
        status = head[9:12]
        error = None if status == b"200" else f"status {status.decode()}"
        meant, self._meant = self._meant, None
        self._got.clear()
        self._run.ended(error, meant)
        if b"\r\nconnection: close" not in head:
            self._run.free(self)

    def connection_lost(self, failure: Exception | None) -> None:
        if self in self._run.idle:
            self._run.idle.remove(self)
        if self._meant is not None:
            self._run.ended(f"connection lost: {failure or 'closed'}", self._meant)
            self._meant = None


async def drive(
    url: str,
    *,
    rate: float,
    seconds: float,
    connections: int,
    tokens: int = 20,
    token: str | None = None,
    model: str | None = None,
    settle: float = _SETTLE,
) -> Outcome:
    """Send ``rate`` requests a second, one text of ``tokens`` tokens each, for ``seconds``."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    loop = asyncio.get_running_loop()
    if model is None:
        model = await _model(host, port, token)
    requests = [_request(host, token, model, tokens, number) for number in range(997)]
    run = _Run(requests, rate, seconds)
    made = [
        (await loop.create_connection(lambda: _Connection(run), host, port))[0]
        for _ in range(connections)
    ]
    try:
        await run.pace()
        await asyncio.wait_for(run.done.wait(), settle)
    except TimeoutError:
        run.outcome.errors["no answer"] += run.left
    finally:
        for transport in made:
            transport.abort()
    return run.outcome


def _request(host: str, token: str | None, model: str, tokens: int, number: int) -> bytes:
    words = [WORDS[(number * 7 + 11 * place) % len(WORDS)] for place in range(tokens)]
    body = json.dumps({"model": model, "input": " " + " ".join(words)}).encode()
    return _head("POST", "/v1/embeddings", host, token, len(body)) + body


def _head(method: str, path: str, host: str, token: str | None, length: int) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _model(host: str, port: int, token: str | None) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(_head("GET", "/v1/models", host, token, 0))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    writer.close()
    if "data" not in body:
        raise SystemExit(f"{host}:{port}: {body}")
    return str(body["data"][0]["id"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 where a request was not answered with vectors."""
    it = argparse.ArgumentParser(
        prog="asterisk.serve.load", description=(__doc__ or "").split("\n")[0]
    )
    it.add_argument("url", help="such as http://127.0.0.1:8080")
    it.add_argument("--rate", type=float, default=1000, help="requests a second (1000)")
    it.add_argument("--seconds", type=float, default=10)
    it.add_argument("--connections", type=int, default=32)
    it.add_argument("--tokens", type=int, default=20, help="of each text (20)")
    it.add_argument("--token-file", type=Path)
    it.add_argument("--pid", type=int, help="the server's process, on this machine and Linux")
    arguments = it.parse_args(argv)
    token = arguments.token_file.read_text().strip() if arguments.token_file else None
    monitor = ProcessMonitor(arguments.pid) if arguments.pid else None

    async def run() -> Outcome:
        measuring = asyncio.ensure_future(monitor.run()) if monitor else None
        try:
            return await drive(
                arguments.url,
                rate=arguments.rate,
                seconds=arguments.seconds,
                connections=arguments.connections,
                tokens=arguments.tokens,
                token=token,
            )
        finally:
            if measuring:
                measuring.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await measuring

    try:
        outcome = asyncio.run(run())
    except OSError as failure:
        where = failure.filename or arguments.url
        print(f"{where}: {failure.strerror or failure}", file=sys.stderr)
        return 1
    print(outcome)
    if monitor:
        print(monitor.summary(len(outcome.seconds)))
    return 1 if outcome.errors else 0


if __name__ == "__main__":
    sys.exit(main())
