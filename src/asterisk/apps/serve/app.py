"""The routes, as a Starlette application."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asterisk.apps.serve import api
from asterisk.apps.serve.errors import ApiError, busy, failed, too_large, too_slow, unavailable
from asterisk.apps.serve.jobs import Job, Workers
from asterisk.apps.serve.limits import ByteBudget, Limits, Reservation
from asterisk.apps.serve.metrics import CONTENT_TYPE, Metrics
from asterisk.apps.serve.token import allows
from asterisk.common.vectors import similarity

PATHS = ("/v1/embeddings", "/v1/models", "/v1/rerank", "/embed", "/health", "/metrics")
ALIASES = {
    "/embeddings": "/v1/embeddings",
    "/models": "/v1/models",
    "/rerank": "/v1/rerank",
    "/v2/rerank": "/v1/rerank",
}
_REASONS = {408: "timeout", 413: "body_too_large", 429: "rate_limit_exceeded", 503: "unavailable"}
_SOON = 0.05  # seconds within which nobody asks whether the client is still there
_MOST_DROPPED = 64 << 20  # bytes of a body that is too large
_PIECE = 32 << 10  # bytes of an answer that are handed on at a time


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and to whom."""

    models: tuple[str, ...]  # names that a request may give; the first is the model's own
    format: str
    fingerprint: str
    created: int  # seconds since 1970
    token: bytes | None = None
    cors_origins: Sequence[str] = ()
    strict: bool = False
    token_ids: bool = False


class Service:
    """What the routes share; ``connections`` is replaced by what tells how many are open."""

    def __init__(
        self,
        workers: Workers,
        served: Served,
        rules: api.Rules,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.workers = workers
        self.served = served
        self.rules = rules
        self.limits = limits
        self.metrics = metrics
        self.connections: Callable[[], int] = int
        self.bodies = ByteBudget(limits.bodies)
        self.answers = ByteBudget(limits.answers)
        self.cut_short = 0  # requests that were not answered when the server had to end
        metrics.gauge("asterisk_queue_texts", "Texts waiting.", lambda: workers.waiting)
        metrics.gauge("asterisk_body_bytes", "Bodies of requests.", lambda: self.bodies.held)
        metrics.gauge("asterisk_answer_bytes", "Answers not sent.", lambda: self.answers.held)

    def refusal(self, scope: Scope) -> ApiError | None:
        """Return why a request is answered with an error before it is looked at, if it is."""
        if scope["path"] == "/health":
            return None
        if self.connections() > self.limits.connections:
            return unavailable("Too many connections.")
        if not allows(self.served.token, dict(scope["headers"]).get(b"authorization", b"")):
            challenge = {"www-authenticate": "Bearer"}
            message = "Incorrect API key provided."
            return ApiError(401, message, code="invalid_api_key", headers=challenge)
        return None

    async def embed(self, request: api.EncodeRequest, receive: Receive) -> Job:
        """Return the request's vectors, written; ApiError, ClientDisconnect."""
        self.metrics.ignored.inc(request.ignored)
        job = self.workers.submit(request)
        try:
            await asyncio.wait((job.done,), timeout=_SOON)
            if not job.done.done():
                await self._wait(job, receive)
        finally:
            if not job.done.done():
                self.workers.abandon(job)
        if job.failure is not None:
            raise job.failure
        self.metrics.texts.inc(len(job.entries))
        self.metrics.tokens.inc(job.tokens)
        self.metrics.truncated.inc(job.truncated)
        return job

    async def _wait(self, job: Job, receive: Receive) -> None:
        seconds = self.limits.answer
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait((job.done, gone), timeout=seconds, return_when=first)
            if not job.done.done():
                if gone.done():
                    raise ClientDisconnect
                raise unavailable(f"No answer within {seconds:g} seconds.")
        finally:
            gone.cancel()

    async def body(self, scope: Scope, receive: Receive, reservation: Reservation) -> bytes:
        """Return a request's body, inflated and within the bounds; ApiError, ClientDisconnect."""
        limit = self.limits.body
        headers = dict(scope["headers"])
        large = int(headers.get(b"content-length", b"0")) > limit  # the server took digits only
        if large and b"expect" in headers:
            raise too_large(limit)
        gzip = _decompressor(headers.get(b"content-encoding", b"identity"))
        parts: list[bytes] = []
        more = True
        dropped = 0
        try:
            async with asyncio.timeout(self.limits.arrival):
                # A body that is too large is read, too: many clients hear nothing before its end.
                while more and dropped < _MOST_DROPPED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    more, part = message["more_body"], message["body"]
                    if gzip is not None and not large:
                        part = gzip.decompress(part, limit - reservation.size + 1)
                        if gzip.unused_data:
                            raise zlib.error
                    if large or reservation.size + len(part) > limit:
                        large = True
                        dropped += len(part)
                        parts.clear()
                        reservation.resize(0)
                    elif reservation.grow(len(part)):
                        parts.append(part)
                    else:
                        raise busy("Too many large requests at once.")
            if gzip is not None and not large and not gzip.eof:
                raise zlib.error
        except TimeoutError:
            raise too_slow(self.limits.arrival) from None
        except zlib.error:
            message = "The body is not one whole gzip stream, as its Content-Encoding says."
            raise ApiError(400, message) from None
        if large:
            raise too_large(limit)
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


class VectorRoute:
    """An endpoint whose answer is made from vectors: ``parse`` reads a body, ``finish`` writes."""

    def __init__(
        self,
        service: Service,
        parse: Callable[[bytes, api.Rules], Any],
        finish: Callable[[Service, Any, Job], list[bytes]],
    ) -> None:
        self.service = service
        self.parse = parse
        self.finish = finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with self.service.answers.reserve() as reservation:
            parts = await self._answer(scope, receive, reservation)
            await self.service.send(parts, send, reservation)

    async def _answer(
        self, scope: Scope, receive: Receive, reservation: Reservation
    ) -> list[bytes]:
        service = self.service
        start = time.monotonic()
        try:
            with service.bodies.reserve() as held:
                body = await service.body(scope, receive, held)
                request = self.parse(body, service.rules)
                del body
                encode = getattr(request, "encode", request)
                if not reservation.grow(encode.answer_size, allow_first=True):
                    raise busy("Too many answers are under way or not read yet.")
                job = await service.embed(encode, receive)
            parts = self.finish(service, request, job)
        except (ApiError, ClientDisconnect):
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            raise failed() from None
        service.metrics.seconds.observe(time.monotonic() - start)
        return parts


def embeddings(service: Service, _: api.EncodeRequest, job: Job) -> list[bytes]:
    """Write the answer of OpenAI's embeddings."""
    model = json.dumps(service.served.models[0]).encode()
    used = b'{"prompt_tokens":%d,"total_tokens":%d}' % (job.tokens, job.tokens)
    tail = b'],"model":%b,"usage":%b}\n' % (model, used)
    return [b'{"object":"list","data":[', *job.entries, tail]


def embed(_service: Service, _request: api.EncodeRequest, job: Job) -> list[bytes]:
    """Write the answer of text-embeddings-inference's /embed."""
    return [b"[", *job.entries, b"]\n"]


def rerank(service: Service, request: api.RerankRequest, job: Job) -> list[bytes]:
    """Write the answer of a reranker: cosines of the documents with the query."""
    size = service.rules.dimensions
    vectors = np.frombuffer(b"".join(job.entries), np.float32).reshape(-1, size)
    scores = similarity(vectors[-1:], vectors[:-1])[0]
    results: list[dict[str, object]] = []
    for index in np.argsort(-scores, kind="stable")[: request.top_n].tolist():
        score = min(1.0, float(scores[index]))  # rounding may go beyond
        results.append({"index": index, "relevance_score": score})
        if request.return_documents:
            results[-1]["document"] = {"text": request.documents[index]}
    answer = {
        "model": service.served.models[0],
        "results": results,
        "usage": {"prompt_tokens": job.tokens, "total_tokens": job.tokens},
    }
    return [json.dumps(answer, ensure_ascii=False).encode(errors="replace")]


class AccessControl:
    """Middleware that answers what is refused whatever it asks for; see `Service.refusal`."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with an error."""
        refusal = self.service.refusal(scope)
        app = self.app if refusal is None else refusal.response(scope["path"])
        await app(scope, receive, send)


class RequestCounter:
    """Middleware that gives a path its one name, counts answers, and ends those that must end."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        if path not in PATHS:
            path = re.sub("/+", "/", path).rstrip("/")
            path = "/v1" + path if path.startswith("/models/") else ALIASES.get(path, path)
            scope["path"] = path or "/"
        status = 499  # where the client hung up

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics = self.service.metrics
        try:
            await self.app(scope, receive, count)
        except asyncio.CancelledError:
            self.service.cut_short += 1
            if status == 499:
                failure = unavailable("The server stopped before there was an answer.")
                await failure.response(path)(scope, receive, count)
        if status in _REASONS:
            metrics.rejected.labels(_REASONS[status]).inc()
        known = path if path in PATHS else "/v1/models/" if "/v1/models/" in path else "other"
        metrics.requests.labels(known, str(status)).inc()


def application(service: Service) -> ASGIApp:
    """Return the application."""

    async def models(request: Request) -> Response:
        entry = {"object": "model", "created": service.served.created, "owned_by": "asterisk"}
        entries = [{"id": name, **entry} for name in service.rules.names()]
        name = request.path_params.get("name")
        if name is None:
            return _json({"object": "list", "data": entries})
        for it in entries:
            if it["id"] == name:
                return _json(it)
        message = f"The model {name[:64]!r} does not exist."
        raise ApiError(404, message, param="model", code="model_not_found")

    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def api_error(request: Request, failure: ApiError) -> Response:
        return failure.response(request.scope["path"])

    async def http_error(request: Request, failure: HTTPException) -> Response:
        asked = f"{request.method} {request.scope['path'][:200]}"
        if failure.status_code == 405:
            headers = dict(failure.headers or {})
            code = "method_not_supported"
            return ApiError(405, f"Not allowed: {asked}.", code=code, headers=headers).response("")
        return ApiError(404, f"Unknown request URL: {asked}.", code="unknown_url").response("")

    async def hung_up(_: Request, _failure: ClientDisconnect) -> None:
        return None

    middleware = [Middleware(AccessControl, service=service)]
    if origins := service.served.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
        )
        middleware.insert(0, cors)  # so that refusals carry its headers, too

    def vectors(path: str, *functions: Callable[..., Any]) -> Route:
        return Route(path, VectorRoute(service, *functions), methods=["POST"])

    routes = [
        vectors("/v1/embeddings", api.parse_embeddings, embeddings),
        vectors("/v1/rerank", api.parse_rerank, rerank),
        vectors("/embed", api.parse_embed, embed),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", models),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    handlers = {ApiError: api_error, HTTPException: http_error, ClientDisconnect: hung_up}
    starlette = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
    return RequestCounter(starlette, service)


def _decompressor(encoding: bytes) -> Any:
    """Return what inflates a body, None where it is as it is."""
    name = encoding.strip().lower()
    if name not in (b"identity", b"gzip", b"x-gzip"):
        accepted = {"accept-encoding": "gzip"}
        raise ApiError(415, "A body may be compressed with gzip only.", headers=accepted)
    return None if name == b"identity" else zlib.decompressobj(wbits=31)


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] == "http.request":
        pass
