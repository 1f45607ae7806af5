"""What a client is told where it gets no vectors, in the shape of the API that it asked.

Sources: https://platform.openai.com/docs/guides/error-codes for all paths but /embed, which answers
as Hugging Face's text-embeddings-inference does.
"""

from __future__ import annotations

import json

from starlette.responses import Response

RETRY_SOON = {"retry-after": "1"}
CLOSE = {"connection": "close"}
_TEI_TYPES = {429: "overloaded", 500: "backend", 503: "unhealthy"}


class ApiError(Exception):
    """A request that is answered with ``status`` and a message instead of vectors."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind
        self.headers = headers

    def response(self, path: str) -> Response:
        """Return the answer to a request for ``path``."""
        fields: dict[str, object] = {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }
        if path == "/embed":
            kind = _TEI_TYPES.get(self.status, "validation")
            fields = {"error": self.message, "error_type": kind}
        body = json.dumps(fields).encode() + b"\n"
        return Response(body, self.status, self.headers, "application/json")


def busy(message: str) -> ApiError:
    """Return the answer to a request for which there is no memory or queue now."""
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=RETRY_SOON)


def too_large(limit: int) -> ApiError:
    """Return the answer to a body of more than ``limit`` bytes."""
    message = f"The request's body has more than {limit} bytes."
    return ApiError(413, message, code="body_too_large", headers=CLOSE)


def too_slow(seconds: float) -> ApiError:
    """Return the answer to a body that did not arrive within ``seconds``."""
    message = f"The request did not arrive within {seconds:g} seconds."
    return ApiError(408, message, code="timeout", headers=CLOSE)


def unavailable(message: str) -> ApiError:
    """Return the answer where the server, not the request, is at fault for now."""
    return ApiError(503, message, kind="server_error", headers={**RETRY_SOON, **CLOSE})


def failed() -> ApiError:
    """Return the answer where the server failed; what happened is in its own log."""
    return ApiError(500, "The server failed; its log says more.", kind="server_error")
