"""Requests at a fixed rate, to see what a server holds.

``python -m benchmarks.serve_load URL --rate 1000 --seconds 10 --connections 32 --pid PID``

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
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from asterisk.common.process_memory import read_sizes

# One token each with a space before it, in GPT-2's vocabulary.
WORDS = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot
right study
""".split()  # noqa: SIM905
_SETTLE = 30.0  # seconds that answers have after the last request has left
_INTERVAL = 0.25  # seconds between two looks at the server's process


@dataclass
class Outcome:
    """What came of a run: seconds from intended start to whole answer, errors by kind."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    late: float = 0.0  # most seconds by which this program itself handed a request on too late

    def __str__(self) -> str:
        rate = len(self.seconds) / self.elapsed
        line = f"{rate:.1f} requests/s, {self.errors.total()} errors"
        ordered = sorted(self.seconds)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            if ordered:  # the latency that a share of the answers stayed within
                latency = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
                line += f", {name} {latency * 1e3:.2f} ms"
        line += f", generator late by {self.late * 1e3:.2f} ms at most"
        return line + "".join(f"\n{count} x {what}" for what, count in self.errors.most_common())


async def drive(
    url: str,
    *,
    rate: float,
    seconds: float,
    connections: int,
    tokens: int = 20,
    token: str | None = None,
    settle: float = _SETTLE,
) -> Outcome:
    """Send ``rate`` requests a second, one text of ``tokens`` tokens each, for ``seconds``.

    A connection is used by one request at a time, and not replaced when the server closes it.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    total = round(rate * seconds)
    requests = [_request(host, token, tokens, number) for number in range(997)]
    outcome = Outcome()
    due: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    streams = [await asyncio.open_connection(host, port) for _ in range(connections)]

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closing = False
        while not closing:
            number, meant = await due.get()
            try:
                writer.write(requests[number % len(requests)])
                status, closing = await _answer(reader)
            except (OSError, EOFError) as failure:
                outcome.errors[f"connection lost: {failure or 'closed'}"] += 1
                closing = True
            else:
                if status == "200":
                    outcome.seconds.append(time.perf_counter() - meant)
                else:
                    outcome.errors[f"status {status}"] += 1
            outcome.elapsed = time.perf_counter() - begin
            due.task_done()

    begin = time.perf_counter() + 0.05
    senders = [asyncio.ensure_future(send(*stream)) for stream in streams]
    try:
        for number in range(total):
            meant = begin + number / rate
            if (early := meant - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            outcome.late = max(outcome.late, time.perf_counter() - meant)
            due.put_nowait((number, meant))
        await asyncio.wait_for(due.join(), settle)
    except TimeoutError:
        outcome.errors["no answer"] += total - len(outcome.seconds) - outcome.errors.total()
    finally:
        for sender in senders:
            sender.cancel()
        for _, writer in streams:
            writer.transport.abort()
    return outcome


def _request(host: str, token: str | None, tokens: int, number: int) -> bytes:
    words = [WORDS[(number * 7 + 11 * position) % len(WORDS)] for position in range(tokens)]
    body = json.dumps({"input": " " + " ".join(words)}).encode()
    lines = ["POST /v1/embeddings HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines.append(f"Content-Length: {len(body)}")
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """Read one answer; return its status, and whether the server closes the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return head[9:12].decode(), b"\r\nconnection: close" in head


class ProcessMonitor:
    """The highest memory seen of a process, in bytes, and the CPU seconds it took meanwhile.

    USS are the pages that no other process has, PSS counts a shared page by its share, and RSS in
    full. Alone on a device a process has the pages to itself that it shares here, so its PSS there
    lies between PSS and RSS here. Source: proc_pid_smaps_rollup(5), proc_pid_stat(5).
    """

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._peaks = {"USS": 0, "PSS": 0, "RSS": 0}
        self._cpu = 0.0

    async def run(self) -> None:
        """Measure until cancelled; OSError if there is no such process."""
        begin = self._cpu_seconds()
        while True:
            sizes = read_sizes(self._folder / "smaps_rollup")
            private = sizes["Private_Clean"] + sizes["Private_Dirty"]
            for name, size in (("USS", private), ("PSS", sizes["Pss"]), ("RSS", sizes["Rss"])):
                self._peaks[name] = max(self._peaks[name], size)
            self._cpu = self._cpu_seconds() - begin
            await asyncio.sleep(_INTERVAL)

    def _cpu_seconds(self) -> float:
        after_name = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def summary(self, answers: int) -> str:
        """Return one line; CPU time by the number of ``answers``."""
        line = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in self._peaks.items())
        each = self._cpu / max(answers, 1) * 1e3
        return f"server: {line}, CPU {self._cpu:.2f} s, {each:.2f} ms a request"


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if a request was not answered with vectors."""
    summary = (__doc__ or "").split("\n")[0]
    it = argparse.ArgumentParser(prog="benchmarks.serve_load", description=summary)
    it.add_argument("url", help="such as http://127.0.0.1:8080")
    it.add_argument("--rate", type=float, default=1000, help="requests a second (1000)")
    it.add_argument("--seconds", type=float, default=10)
    it.add_argument("--connections", type=int, default=32)
    it.add_argument("--tokens", type=int, default=20, help="of each text (20)")
    it.add_argument("--token-file", type=Path)
    it.add_argument("--pid", type=int, help="the server's process, on this machine and Linux")
    options = vars(it.parse_args(argv))
    url, file, pid = options.pop("url"), options.pop("token_file"), options.pop("pid")
    token = file.read_text().strip() if file else None
    monitor = ProcessMonitor(pid) if pid else None

    async def run() -> Outcome:
        measuring = asyncio.ensure_future(monitor.run()) if monitor else None
        try:
            return await drive(url, token=token, **options)
        finally:
            if measuring:
                measuring.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await measuring

    try:
        outcome = asyncio.run(run())
    except OSError as failure:
        print(f"{failure.filename or url}: {failure.strerror or failure}", file=sys.stderr)
        return 1
    print(outcome)
    if monitor:
        print(monitor.summary(len(outcome.seconds)))
    return 1 if outcome.errors else 0


if __name__ == "__main__":
    sys.exit(main())
