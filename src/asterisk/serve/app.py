"""The routes, as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from asterisk.serve.api import Rules, parse
from asterisk.serve.errors import ApiError, busy, failed, too_large, unavailable
from asterisk.serve.jobs import Job, Workers
from asterisk.serve.limits import MIB, Limits
from asterisk.serve.metrics import CONTENT_TYPE, Metrics
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
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        known = path if path in _ROUTES else "/v1/models/" if _is_model(path) else "other"
        try:
            try:
                status, kind, body = await self._answer(scope, receive)
                headers: tuple[tuple[str, str], ...] = ()
            except (ApiError, _Gone):
                raise
            except Exception:
                traceback.print_exc(file=sys.stderr)
                raise failed() from None
        except ApiError as failure:
            status, kind, body = failure.status, _JSON, failure.body()
            headers = failure.headers
            if status in (408, 413, 429, 503):
                self._metrics.rejected[str(failure.code or "unavailable")] += 1
        except _Gone:
            self._metrics.requests[known, "499"] += 1
            return
        self._metrics.requests[known, str(status)] += 1
        head = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        head += [(name.encode(), value.encode()) for name, value in headers]
        if self.draining or status == 413:
            head.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, str, bytes]:
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
            return 200, CONTENT_TYPE, self._page()
        if path != "/v1/embeddings":
            return 200, _JSON, self._models(path.removeprefix("/v1/models").lstrip("/"))
        return 200, _JSON, await self._embeddings(headers, receive)

    def _health(self) -> tuple[int, str, bytes]:
        if self.draining:
            raise unavailable("The server is stopping.")
        return 200, _JSON, b'{"status":"ok"}\n'

    def _page(self) -> bytes:
        return self._metrics.render(
            queue=self._workers.waiting,
            held=self._held,
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
            for model in self._served.models
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

    async def _embeddings(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        start = time.monotonic()
        held = [0]
        try:
            body = await self._body(headers, receive, held)
            request = parse(body, self._rules)
            del body
            job = self._workers.submit(request)
            try:
                await self._wait(job, receive)
            finally:
                if not job.done.done():
                    self._workers.abandon(job)
        finally:
            self._held -= held[0]
        if job.failure is not None:
            raise job.failure
        self._metrics.took(time.monotonic() - start)
        self._metrics.texts += len(job.entries)
        self._metrics.tokens += job.tokens
        self._metrics.truncated += job.truncated
        return b'{"object":"list","data":[%b],"model":%b,"usage":%b}\n' % (
            b",".join(job.entries),
            json.dumps(self._served.models[0]).encode(),
            b'{"prompt_tokens":%d,"total_tokens":%d}' % (job.tokens, job.tokens),
        )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, held: list[int]) -> bytes:
        most = self._limits.body
        length = headers.get(b"content-length", b"0")
        if int(length) > most:  # the parser took digits only
            if b"expect" not in headers:
                await _discard(receive)
            raise too_large(most)
        parts: list[bytes] = []
        total = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            part = message["body"]
            total += len(part)
            if total > most:
                parts.clear()
                await _discard(receive)
                raise too_large(most)
            if self._held + len(part) > self._limits.bodies:
                raise busy("Too many large requests at once.")
            self._held += len(part)
            held[0] += len(part)
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
