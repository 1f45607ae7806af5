"""The routes, as a Starlette application."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asterisk.apps.serve import api
from asterisk.apps.serve.api import ApiError
from asterisk.apps.serve.limits import Reservation
from asterisk.apps.serve.service import Job, Service
from asterisk.common.vectors import similarity

PATHS = ("/v1/embeddings", "/v1/models", "/v1/rerank", "/embed", "/health", "/metrics")
ALIASES = {
    "/embeddings": "/v1/embeddings",
    "/models": "/v1/models",
    "/rerank": "/v1/rerank",
    "/v2/rerank": "/v1/rerank",
}
_REASONS = {408: "timeout", 413: "body_too_large", 429: "rate_limit_exceeded", 503: "unavailable"}


@dataclass(frozen=True, slots=True)
class VectorRoute:
    """An endpoint whose answer is made from vectors: ``parse`` reads a body, ``finish`` writes."""

    service: Service
    parse: Callable[[bytes, api.Rules], api.EncodeRequest]
    finish: Callable[[Any, Job], list[bytes]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with self.service.answers.reserve() as reservation:
            # Nothing but the answer is in memory while the client reads it.
            parts = await self._answer(scope, receive, reservation)
            await self.service.send(parts, send, reservation)

    async def _answer(
        self, scope: Scope, receive: Receive, reservation: Reservation
    ) -> list[bytes]:
        service, start = self.service, time.monotonic()
        try:
            with service.bodies.reserve() as inbound:
                body = await service.body(scope, receive, inbound)
                request = self.parse(body, service.rules)
                del body
                if not reservation.grow(request.answer_size, allow_first=True):
                    raise ApiError(429, "Too many answers are under way or not read yet.")
                job = await service.embed(request, receive)
            parts = self.finish(request, job)
        except (ApiError, ClientDisconnect):
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            raise ApiError(500, "The server failed; its log says more.") from None
        service.metrics.seconds.observe(time.monotonic() - start)
        return parts


def access_control(app: ASGIApp, service: Service, token: bytes | None) -> ASGIApp:
    """Refuse a request, whatever it asks for, without the token or room for its connection."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        responder, path = app, scope["path"]
        scheme, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        # The comparison's time says nothing about the token.
        wrong = scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token or b"")
        if path == "/health":
            pass
        elif service.connections() > service.limits.connections:
            responder = ApiError(503, "Too many connections.").response(path)
        elif token is not None and wrong:
            responder = ApiError(401, "Incorrect API key provided.").response(path)
        await responder(scope, receive, send)

    return respond


def request_counter(app: ASGIApp, service: Service) -> ASGIApp:
    """Give a path its one name, count the answers, and end the requests that must end."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in PATHS:
            path = re.sub("/+", "/", path).rstrip("/")
            path = "/v1" + path if path.startswith("/models/") else ALIASES.get(path, path)
            scope["path"] = path or "/"
        status = 499  # if the client hangs up

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, count)
        except asyncio.CancelledError:
            service.cut_short += 1
            if status == 499:
                failure = ApiError(503, "The server stopped before there was an answer.")
                await failure.response(path)(scope, receive, count)
        if status in _REASONS:
            service.metrics.rejected.labels(_REASONS[status]).inc()
        label = path if path in PATHS else "/v1/models/" if "/v1/models/" in path else "other"
        service.metrics.requests.labels(label, str(status)).inc()

    return respond


def application(service: Service, token: bytes | None, cors_origins: Sequence[str]) -> ASGIApp:
    """Return the application, for who has the ``token``, and for web pages of ``cors_origins``."""
    entry = {"object": "model", "created": int(time.time()), "owned_by": "asterisk"}
    entries = {name: {"id": name, **entry} for name in service.rules.names()}
    own = service.rules.models[0]

    async def models(_: Request) -> Response:
        return _json({"object": "list", "data": list(entries.values())})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in entries:
            message = f"The model {name[:64]!r} does not exist."
            raise ApiError(404, message, param="model", code="model_not_found")
        return _json(entries[name])

    async def health(_: Request) -> Response:
        return _json({"status": "ok"})

    async def metrics(_: Request) -> Response:
        content_type = {"content-type": CONTENT_TYPE_PLAIN_0_0_4}
        return Response(service.metrics.render(), headers=content_type)

    def embeddings(_: api.EncodeRequest, job: Job) -> list[bytes]:
        usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (job.tokens, job.tokens)
        tail = b'],"model":%b,"usage":%b}\n' % (json.dumps(own).encode(), usage)
        return [b'{"object":"list","data":[', *job.entries, tail]

    def embed(_: api.EncodeRequest, job: Job) -> list[bytes]:
        return [b"[", *job.entries, b"]\n"]

    def rerank(request: api.RerankRequest, job: Job) -> list[bytes]:
        """Sort the documents by their cosines with the query, which is the last vector."""
        vectors = np.frombuffer(b"".join(job.entries), np.float32).reshape(len(job.entries), -1)
        scores = similarity(vectors[-1:], vectors[:-1])[0]
        results: list[dict[str, object]] = []
        for index in np.argsort(-scores, kind="stable")[: request.top_n].tolist():
            score = min(1.0, float(scores[index]))  # rounding may go beyond
            results.append({"index": index, "relevance_score": score})
            if request.return_documents:
                results[-1]["document"] = {"text": request.documents[index]}
        usage = {"prompt_tokens": job.tokens, "total_tokens": job.tokens}
        answer = {"model": own, "results": results, "usage": usage}
        return [json.dumps(answer, ensure_ascii=False).encode(errors="replace")]

    middleware = [Middleware(access_control, service=service, token=token)]
    if cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
        )
        middleware.insert(0, cors)  # so that refusals carry its headers, too
    post = {
        "/v1/embeddings": VectorRoute(service, api.parse_embeddings, embeddings),
        "/v1/rerank": VectorRoute(service, api.parse_rerank, rerank),
        "/embed": VectorRoute(service, api.parse_embed, embed),
    }
    get = {
        "/v1/models": models,
        "/v1/models/{name:path}": model,
        "/health": health,
        "/metrics": metrics,
    }
    routes = [Route(path, route, methods=["POST"]) for path, route in post.items()]
    routes += [Route(path, route) for path, route in get.items()]
    handlers = {ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _hung_up}
    starlette = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
    return request_counter(starlette, service)


async def _api_error(request: Request, failure: ApiError) -> Response:
    return failure.response(request.scope["path"])


async def _http_error(request: Request, failure: HTTPException) -> Response:
    asked = f"{request.method} {request.scope['path'][:200]}"
    if failure.status_code != 405:
        return ApiError(404, f"Unknown request URL: {asked}.", code="unknown_url").response("")
    response = ApiError(405, f"Not allowed: {asked}.").response("")
    response.headers.update(failure.headers or {})
    return response


async def _hung_up(_: Request, _failure: ClientDisconnect) -> None:
    return None


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json")
