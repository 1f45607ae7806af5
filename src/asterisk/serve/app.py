"""The routes, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from asterisk.serve.api import Rules, parse
from asterisk.serve.errors import ApiError, busy, failed, too_large, unavailable
from asterisk.serve.jobs import Job, Workers, answer_size
from asterisk.serve.limits import MIB, Limits
from asterisk.serve.metrics import CONTENT_TYPE, Metrics
from asterisk.serve.room import Room, Share
from asterisk.serve.token import allows

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = "application/json"
_ROUTES = {
    "/v1/embeddings": ("POST",),
    "/v1/models": ("GET", "HEAD"),
    "/health": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
}
_SOON = 0.05  # seconds within which nobody asks whether the client is still there
_MOST_DISCARDED = 64 * MIB
_PIECE = 64 << 10  # bytes of an answer that are handed on at a time


class _Gone(Exception):
    """The client hung up."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and to whom."""

    models: tuple[str, ...]  # names that a request may give; the first is the model's own
    format: str
    fingerprint: str
    created: int  # seconds since 1970
    token: bytes | None


class App:
    """The application; ``draining`` is set when the server stops."""

    def __init__(
        self, workers: Workers, served: Served, rules: Rules, limits: Limits, metrics: Metrics
    ) -> None:
        self.draining = False
        self.connections: Callable[[], int] = int
        self._workers = workers
        self._served = served
        self._rules = rules
        self._limits = limits
        self._metrics = metrics
        self._bodies = Room(limits.bodies)
        self._answers = Room(limits.answers)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        known = path if path in _ROUTES else "/v1/models/" if _is_model(path) else "other"
        with self._answers.share() as share:
            headers: tuple[tuple[str, str], ...] = ()
            try:
                status, kind, parts = await self._outcome(scope, receive, share)
            except ApiError as failure:
                status, kind, parts = failure.status, _JSON, [failure.body()]
                headers = failure.headers
                if status in (408, 413, 429, 503):
                    self._metrics.rejected[str(failure.code or "unavailable")] += 1
            except _Gone:
                self._metrics.requests[known, "499"] += 1
                return
            self._metrics.requests[known, str(status)] += 1
            length = sum(map(len, parts))
            head = [(b"content-type", kind.encode()), (b"content-length", b"%d" % length)]
            head += [(name.encode(), value.encode()) for name, value in headers]
            if self.draining or status == 413:
                head.append((b"connection", b"close"))
            # Cancelled here: the server has stopped, and the connection is cut.
            with contextlib.suppress(asyncio.CancelledError):
                await send({"type": "http.response.start", "status": status, "headers": head})
                await _send_all(parts, send, share)

    async def _outcome(
        self, scope: Message, receive: Receive, share: Share
    ) -> tuple[int, str, list[bytes]]:
        """Return status, type and body; any failure is one that a client can be told."""
        try:
            return await self._answer(scope, receive, share)
        except (ApiError, _Gone):
            raise
        except asyncio.CancelledError:
            raise unavailable("The server stopped before there was an answer.") from None
        except Exception:
            traceback.print_exc(file=sys.stderr)
            raise failed() from None

    async def _answer(
        self, scope: Message, receive: Receive, share: Share
    ) -> tuple[int, str, list[bytes]]:
        path, method = scope["path"], scope["method"]
        allowed = ("GET", "HEAD") if _is_model(path) else _ROUTES.get(path)
        if allowed is None:
            raise ApiError(404, f"Unknown request URL: {method} {path[:200]}.", code="unknown_url")
        if method not in allowed:
            raise ApiError(
                405,
                f"Not allowed to {method} on {path[:200]}.",
                code="method_not_supported",
                headers=(("allow", ", ".join(allowed)),),
            )
        if path == "/health":
            return self._health()
        headers = dict(scope["headers"])
        if not allows(self._served.token, headers.get(b"authorization", b"")):
            raise ApiError(
                401,
                "Incorrect API key provided.",
                code="invalid_api_key",
                headers=(("www-authenticate", "Bearer"),),
            )
        if path == "/metrics":
            return 200, CONTENT_TYPE, [self._page()]
        if path != "/v1/embeddings":
            return 200, _JSON, [self._models(path.removeprefix("/v1/models").lstrip("/"))]
        return 200, _JSON, await self._embeddings(headers, receive, share)

    def _health(self) -> tuple[int, str, list[bytes]]:
        if self.draining:
            raise unavailable("The server is stopping.")
        return 200, _JSON, [b'{"status":"ok"}\n']

    def _page(self) -> bytes:
        return self._metrics.render(
            queue=self._workers.waiting,
            held=self._bodies.held,
            answers=self._answers.held,
            connections=self.connections(),
            started=self._served.created,
            about={
                "model": self._served.models[0],
                "format": self._served.format,
                "fingerprint": self._served.fingerprint,
            },
        )

    def _models(self, name: str) -> bytes:
        entries = [
            {
                "id": model,
                "object": "model",
                "created": self._served.created,
                "owned_by": "asterisk",
            }
            for model in self._rules.names()
        ]
        if not name:
            return json.dumps({"object": "list", "data": entries}).encode()
        for entry in entries:
            if entry["id"] == name:
                return json.dumps(entry).encode()
        raise ApiError(
            404,
            f"The model {name[:64]!r} does not exist.",
            param="model",
            code="model_not_found",
        )

    async def _embeddings(
        self, headers: dict[bytes, bytes], receive: Receive, share: Share
    ) -> list[bytes]:
        start = time.monotonic()
        with self._bodies.share() as held:
            body = await self._body(headers, receive, held)
            request = parse(body, self._rules)
            del body
            if not share.alone_or_more(answer_size(request)):
                raise busy("Too many answers are under way or not read yet.")
            job = self._workers.submit(request)
            try:
                await self._wait(job, receive)
            finally:
                if not job.done.done():
                    self._workers.abandon(job)
        if job.failure is not None:
            raise job.failure
        self._metrics.took(time.monotonic() - start)
        self._metrics.texts += len(job.entries)
        self._metrics.tokens += job.tokens
        self._metrics.truncated += job.truncated
        tail = b'],"model":%b,"usage":%b}\n' % (
            json.dumps(self._served.models[0]).encode(),
            b'{"prompt_tokens":%d,"total_tokens":%d}' % (job.tokens, job.tokens),
        )
        return [b'{"object":"list","data":[', *job.entries, tail]

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, held: Share) -> bytes:
        most = self._limits.body
        length = headers.get(b"content-length", b"0")
        if int(length) > most:  # the parser took digits only
            if b"expect" not in headers:
                await _discard(receive)
            raise too_large(most)
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            part = message["body"]
            if held.size + len(part) > most:
                parts.clear()
                await _discard(receive)
                raise too_large(most)
            if not held.more(len(part)):
                raise busy("Too many large requests at once.")
            parts.append(part)
            if not message["more_body"]:
                return b"".join(parts)

    async def _wait(self, job: Job, receive: Receive) -> None:
        await asyncio.wait((job.done,), timeout=_SOON)
        if job.done.done():
            return
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait(
                (job.done, gone),
                timeout=self._limits.answer,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            gone.cancel()
        if not job.done.done():
            if gone.done():
                raise _Gone
            raise unavailable(f"No answer within {self._limits.answer:g} seconds.")


def _is_model(path: str) -> bool:
    return path.startswith("/v1/models/") and path != "/v1/models/"


async def _send_all(parts: list[bytes], send: Send, share: Share) -> None:
    """Hand an answer on as fast as the client reads, giving back what has gone."""
    counted = bool(share.size)
    left = sum(map(len, parts))
    parts.reverse()
    while parts:
        piece = [parts.pop()]
        size = len(piece[0])
        while parts and size < _PIECE:
            piece.append(parts.pop())
            size += len(piece[-1])
        if counted:
            share.keep(left)
        await send({"type": "http.response.body", "body": b"".join(piece), "more_body": True})
        left -= size
    # It waits until the last piece has gone, too.
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    """Read a body to its end, for a client that reads no answer before it has sent all."""
    total = 0
    while total < _MOST_DISCARDED:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        total += len(message["body"])
        if not message["more_body"]:
            return


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] == "http.request":
        pass
