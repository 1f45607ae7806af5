"""Requests on their way through the worker threads, a slice of each in turn, and their figures."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

import numpy as np
import prometheus_client as prometheus
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from asterisk.apps.serve.api import ApiError, EncodeRequest, Item, Rules
from asterisk.apps.serve.limits import ByteBudget, Limits, Reservation
from asterisk.common.errors import InputError
from asterisk.common.process_memory import ROLLUP, read_sizes
from asterisk.runtimes.runtime import OnLong, Runtime, divisor

SLICE = 8  # texts of one request before the next request's turn
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_SOON = 0.05  # seconds within which nobody asks whether the client is still there
_MOST_DROPPED = 64 << 20  # bytes of a body that is too large
_PIECE = 32 << 10  # bytes of an answer that are handed on at a time


class Metrics:
    """What Prometheus reads: counts since the start; ``about`` labels what is served."""

    def __init__(self, about: Mapping[str, str]) -> None:
        prometheus.disable_created_metrics()
        registry = self._registry = prometheus.CollectorRegistry()
        labels = {name: value.encode(errors="replace").decode() for name, value in about.items()}
        prometheus.Info("asterisk", "What is served.", registry=registry).info(labels)

        def counter(name: str, help: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"asterisk_{name}", help, labels, registry=registry)

        answered = "Requests answered, by path and status; 499 is a client that hung up."
        self.requests = counter("requests", answered, "path", "status")
        refused = "Requests and connections refused for want of room or time."
        self.rejected = counter("rejected", refused, "reason")
        self.texts = counter("texts", "Texts embedded.")
        self.tokens = counter("tokens", "Tokens embedded.")
        self.truncated = counter("truncated_texts", "Texts cut.")
        self.ignored = counter("ignored_fields", "Fields of requests that are not known here.")
        name, help = "asterisk_request_seconds", "From a request's head to its vectors."
        self.seconds = prometheus.Histogram(name, help, buckets=BUCKETS, registry=registry)
        prometheus.ProcessCollector(registry=registry)
        if ROLLUP.exists():
            help = "Memory, shared pages by share."
            self.gauge("asterisk_pss_bytes", help, lambda: read_sizes()["Pss"])

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Add a figure that is computed at each scrape."""
        prometheus.Gauge(name, help, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """Return the page, in Prometheus's text format."""
        page: bytes = prometheus.generate_latest(self._registry)
        return page


class Job:
    """One request's texts, and what has become of them."""

    def __init__(self, request: EncodeRequest, finished: asyncio.Future[None]) -> None:
        items = request.items
        self.request, self.finished = request, finished
        self.entries = [b""] * len(items)  # each vector as the request's ``write`` gives it
        # Longest first: a new length costs LiteRT a new plan of its memory.
        self.order = sorted(range(len(items)), key=lambda i: len(items[i]), reverse=True)
        self.started = self.tokens = self.truncated = 0
        self.unfinished = len(items)
        self.failure: BaseException | None = None
        self.abandoned = False


class Workers:
    """``threads`` threads that embed, and at most ``limit`` texts that wait for them.

    A worker takes some texts of the first request and puts it behind all others, so that a single
    text waits for slices of long lists only. `submit` and `abandon` are for the event loop.
    """

    def __init__(self, runtime: Runtime, threads: int, limit: int, on_long: OnLong) -> None:
        self.runtime, self.waiting = runtime, 0
        self._limit, self._on_long = limit, on_long
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._threads: list[threading.Thread] = []
        for number in range(threads):
            thread = threading.Thread(target=self._work, name=f"embed-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(self, request: EncodeRequest) -> Job:
        """Queue a request; its job is ``finished`` in the end. ApiError if the queue is full."""
        if self._closed:
            raise ApiError(503, "The server is stopping.")
        count = len(request.items)
        with self._lock:
            if self.waiting + count > self._limit:
                message = f"{self.waiting} texts are waiting; at most {self._limit} can."
                raise ApiError(429, message)
            self.waiting += count
        job = Job(request, self._loop.create_future())
        self._jobs.put(job)
        return job

    def abandon(self, job: Job) -> None:
        """Take a request's texts out of the queue; those under way are finished for nobody."""
        with self._lock:
            if not job.abandoned:
                job.abandoned = True
                self.waiting -= len(job.order) - job.started

    def close(self, seconds: float) -> bool:
        """Let the threads end, all within ``seconds``; return whether they have."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._embed_slice(job)
            del job  # its entries should not wait here for the next one

    def _embed_slice(self, job: Job) -> None:
        with self._lock:
            if job.abandoned:
                return
            indices = job.order[job.started : job.started + SLICE]
            job.started += len(indices)
            self.waiting -= len(indices)
            more = job.started < len(job.order)
        if more:
            self._jobs.put(job)
        tokens = truncated = 0
        try:
            for index in indices:
                ids, cut = self._embed(job, index)
                tokens += len(ids)
                truncated += cut
        except BaseException as failure:
            self.abandon(job)
            job.failure = failure
        with self._lock:
            job.tokens += tokens
            job.truncated += truncated
            job.unfinished -= len(indices)
            finished = job.failure is not None or not job.unfinished
        if finished:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(_finish, job.finished)

    def _embed(self, job: Job, index: int) -> tuple[list[int], bool]:
        """Make one entry; return what `_ids` does."""
        request, runtime = job.request, self.runtime
        on_long = request.on_long or self._on_long
        try:
            ids, cut = self._ids(request.items[index], request.prompt, on_long)
        except InputError as failure:
            message = f"'{request.name_of(index)}': {failure}."
            raise ApiError(400, message, param=request.field) from None
        # A copy, as `Runtime.encode` has one: a sum's last bit may depend on where a row is.
        row = np.array(runtime.embed_ids(ids)[: request.dimensions])
        if runtime.config.normalize if request.normalize is None else request.normalize:
            row = row / divisor(row)
        job.entries[index] = request.write(index, row)
        return ids, cut

    def _ids(self, item: Item, prompt: str, on_long: OnLong) -> tuple[list[int], bool]:
        """Return the ids that the engine is given, and whether they are a part only."""
        runtime = self.runtime
        if isinstance(item, str):
            try:
                return runtime.tokenize(prompt + item, "error"), False
            except InputError:
                if on_long == "error":
                    raise
                return runtime.tokenize(prompt + item), True
        tokenizer = runtime.tokenizer
        longest = runtime.longest - len(tokenizer.prefix) - len(tokenizer.suffix)
        cut = len(item) > longest
        if cut and on_long == "error":
            raise InputError(f"a text has more than {runtime.longest} tokens")
        return tokenizer.with_special_tokens(item[:longest]), cut


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Service:
    """What the routes share: workers, rules, bounds and figures."""

    def __init__(self, workers: Workers, rules: Rules, limits: Limits, metrics: Metrics) -> None:
        self.workers, self.rules, self.limits, self.metrics = workers, rules, limits, metrics
        self.connections: Callable[[], int] = int  # how many are open; the server has its own
        self.bodies = ByteBudget(limits.bodies)
        self.answers = ByteBudget(limits.answers)
        self.cut_short = 0  # requests that were not answered when the server had to end
        metrics.gauge("asterisk_queue_texts", "Texts waiting.", lambda: workers.waiting)
        metrics.gauge("asterisk_body_bytes", "Bodies of requests.", lambda: self.bodies.reserved)
        metrics.gauge("asterisk_answer_bytes", "Answers not sent.", lambda: self.answers.reserved)

    async def embed(self, request: EncodeRequest, receive: Receive) -> Job:
        """Return the request's vectors, written; ApiError, ClientDisconnect."""
        self.metrics.ignored.inc(request.ignored)
        job = self.workers.submit(request)
        try:
            await asyncio.wait((job.finished,), timeout=_SOON)
            if not job.finished.done():
                await self._wait(job, receive)
        finally:
            if not job.finished.done():
                self.workers.abandon(job)
        if job.failure is not None:
            raise job.failure
        self.metrics.texts.inc(len(job.entries))
        self.metrics.tokens.inc(job.tokens)
        self.metrics.truncated.inc(job.truncated)
        return job

    async def _wait(self, job: Job, receive: Receive) -> None:
        async def disconnected() -> None:
            while (await receive())["type"] == "http.request":
                pass

        gone = asyncio.ensure_future(disconnected())
        try:
            first, seconds = asyncio.FIRST_COMPLETED, self.limits.answer
            await asyncio.wait((job.finished, gone), timeout=seconds, return_when=first)
            if not job.finished.done():
                if gone.done():
                    raise ClientDisconnect
                raise ApiError(503, f"No answer within {seconds:g} seconds.")
        finally:
            gone.cancel()

    async def body(self, scope: Scope, receive: Receive, reservation: Reservation) -> bytes:
        """Return a request's body, inflated and within the bounds; ApiError, ClientDisconnect."""
        limit, seconds = self.limits.body, self.limits.arrival
        headers = dict(scope["headers"])
        large = int(headers.get(b"content-length", b"0")) > limit  # the server took digits only
        if large and b"expect" in headers:
            raise _too_large(limit)
        gzip = _decompressor(headers.get(b"content-encoding", b"identity"))
        parts, dropped = list[bytes](), 0
        try:
            async with asyncio.timeout(seconds):
                async for sent in Request(scope, receive).stream():
                    part = sent
                    if gzip is not None and not large:
                        part = gzip.decompress(sent, limit - reservation.size + 1)
                        if gzip.unused_data:
                            raise zlib.error
                    if large or reservation.size + len(part) > limit:
                        large = True
                        dropped += len(part)
                        parts.clear()
                        reservation.resize(0)
                        if dropped >= _MOST_DROPPED:
                            break  # till then it is read: many clients hear nothing before its end
                    elif reservation.grow(len(part)):
                        parts.append(part)
                    else:
                        raise ApiError(429, "Too many large requests at once.")
            if gzip is not None and not large and not gzip.eof:
                raise zlib.error
        except TimeoutError:
            message = f"The request did not arrive within {seconds:g} seconds."
            raise ApiError(408, message) from None
        except zlib.error:
            message = "The body is not one whole gzip stream, as its Content-Encoding says."
            raise ApiError(400, message) from None
        if large:
            raise _too_large(limit)
        return b"".join(parts)

    async def send(self, parts: list[bytes], send: Send, reservation: Reservation) -> None:
        """Send an answer as fast as the client reads, giving back what has gone."""
        left = sum(map(len, parts))
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % left)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        parts.reverse()
        while parts:
            piece = [parts.pop()]
            size = len(piece[0])
            while parts and size < _PIECE:
                piece.append(parts.pop())
                size += len(piece[-1])
            reservation.resize(left)
            body: Message = {"type": "http.response.body", "body": b"".join(piece)}
            await send({**body, "more_body": bool(parts)})
            left -= size


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request's body has more than {limit} bytes.")


def _decompressor(encoding: bytes) -> Any:
    """Return what inflates a body, None for one that is not compressed."""
    name = encoding.strip().lower()
    if name not in (b"identity", b"gzip", b"x-gzip"):
        raise ApiError(415, "A body may be compressed with gzip only.")
    return None if name == b"identity" else zlib.decompressobj(wbits=31)
