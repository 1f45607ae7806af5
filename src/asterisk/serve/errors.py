"""What a request can be told, in the API's shape.

Source: https://platform.openai.com/docs/guides/error-codes; the same four fields in each.
"""

from __future__ import annotations

import json

INVALID = "invalid_request_error"
AGAIN = (("retry-after", "1"),)


class ApiError(Exception):
    """A request that is answered with ``status`` and the API's four fields instead of vectors."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind
        self.headers = headers

    def body(self) -> bytes:
        """Return the answer's body."""
        fields = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": fields}).encode() + b"\n"


def busy(message: str) -> ApiError:
    """Return the answer to what there is no room for now."""
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=AGAIN)


def too_large(most: int) -> ApiError:
    """Return the answer to a body beyond ``most`` bytes."""
    return ApiError(413, f"The request's body has more than {most} bytes.", code="body_too_large")


def too_slow(seconds: float) -> ApiError:
    """Return the answer to a request that did not arrive within ``seconds``."""
    return ApiError(408, f"The request did not arrive within {seconds:g} seconds.", code="timeout")


def unavailable(message: str) -> ApiError:
    """Return the answer where the server, not the request, is at fault for now."""
    return ApiError(503, message, kind="server_error", headers=AGAIN)


def failed() -> ApiError:
    """Return the answer where the server failed; what happened is in its own log."""
    return ApiError(500, "The server failed; its log says more.", kind="server_error")
