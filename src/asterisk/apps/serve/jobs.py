"""Requests on their way through the worker threads, a slice of each in turn."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np

from asterisk.apps.serve.api import EncodeRequest, Item
from asterisk.apps.serve.errors import ApiError, busy, unavailable
from asterisk.common.errors import InputError
from asterisk.runtimes.runtime import OnLong, Runtime, divisor

SLICE = 8  # texts of one request before the next request's turn


class Job:
    """One request's texts, and what has become of them."""

    def __init__(self, request: EncodeRequest, done: asyncio.Future[None]) -> None:
        self.request = request
        self.done = done
        self.entries: list[bytes] = [b""] * len(request.items)
        """Each vector as the request's ``write`` gives it."""
        self.tokens = 0
        self.truncated = 0
        self.failure: BaseException | None = None
        self.abandoned = False
        # Longest first: a new length costs LiteRT a new plan of its memory.
        self.order = sorted(
            range(len(request.items)), key=lambda i: len(request.items[i]), reverse=True
        )
        self.taken = 0
        self.left = len(request.items)


class Workers:
    """``threads`` threads that embed, and the texts that wait for them.

    A worker takes some texts of the request at the front and puts the request behind all others,
    so that a single text waits for a slice of every long list and not for the lists. `submit` and
    `abandon` belong to the event loop's thread.
    """

    def __init__(self, runtime: Runtime, threads: int, most: int, on_long: OnLong) -> None:
        self.waiting = 0
        self.runtime = runtime
        self._most = most
        self._on_long = on_long
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"embed-{lane}", daemon=True)
            for lane in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: EncodeRequest) -> Job:
        """Queue a request; ``done`` of its job is set in the end. ApiError where it is full."""
        if self._closed:
            raise unavailable("The server is stopping.")
        count = len(request.items)
        with self._lock:
            if self.waiting + count > self._most:
                raise busy(f"{self.waiting} texts are waiting; at most {self._most} can.")
            self.waiting += count
        job = Job(request, self._loop.create_future())
        self._jobs.put(job)
        return job

    def abandon(self, job: Job) -> None:
        """Take a request's texts out of the queue; those under way are finished for nobody."""
        with self._lock:
            if not job.abandoned:
                job.abandoned = True
                self.waiting -= len(job.order) - job.taken

    def close(self, seconds: float) -> bool:
        """Let the threads end, all within ``seconds``; tell whether they have."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._turn(job)
            del job  # its entries should not wait here for the next one

    def _turn(self, job: Job) -> None:
        with self._lock:
            if job.abandoned:
                return
            indices = job.order[job.taken : job.taken + SLICE]
            job.taken += len(indices)
            self.waiting -= len(indices)
            more = job.taken < len(job.order)
        if more:
            self._jobs.put(job)
        try:
            tokens, truncated = self._embed(job, indices)
        except BaseException as failure:
            self.abandon(job)
            job.failure = failure
            self._finish(job)
            return
        with self._lock:
            job.tokens += tokens
            job.truncated += truncated
            job.left -= len(indices)
            last = not job.left
        if last:
            self._finish(job)

    def _embed(self, job: Job, indices: Sequence[int]) -> tuple[int, int]:
        request, runtime = job.request, self.runtime
        unit = runtime.config.normalize if request.normalize is None else request.normalize
        on_long = request.on_long or self._on_long
        tokens = truncated = 0
        for index in indices:
            try:
                ids, cut = self._ids(request.items[index], request.prompt, on_long)
            except InputError as failure:
                message = f"'{request.name_of(index)}': {failure}."
                raise ApiError(400, message, param=request.field) from None
            # A copy, as `Runtime.encode` has one: a sum's last bit may depend on where a row is.
            row = np.array(runtime.embed_ids(ids)[: request.dimensions])
            length = divisor(row)
            job.entries[index] = request.write(index, row / length if unit else row)
            tokens += len(ids)
            truncated += cut
        return tokens, truncated

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
        most = runtime.longest - len(tokenizer.prefix) - len(tokenizer.suffix)
        cut = len(item) > most
        if cut and on_long == "error":
            raise InputError(f"a text has more than {runtime.longest} tokens")
        return tokenizer.with_special_tokens(item[:most]), cut

    def _finish(self, job: Job) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(_set, job.done)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
