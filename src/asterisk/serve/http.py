"""uvicorn's HTTP/1.1 with what it leaves open: slow clients, endless heads, too many at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from asterisk.serve.errors import ApiError, too_slow, unavailable
from asterisk.serve.limits import Limits
from asterisk.serve.metrics import Metrics

MOST_HEAD = 64 << 10  # bytes of a request's headers
MOST_UNHEARD = 512 << 10  # bytes in which a head does not end and a body does not go on


class Protocol(HttpToolsProtocol):  # type: ignore[misc]  # lint knows no uvicorn
    """One connection."""

    limits: Limits
    metrics: Metrics

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refused = False
        self._arriving: float | None = None  # since when a request is, by the loop's clock
        self._unsent: float | None = None  # since when an answer waits for the client
        self._head = 0
        self._unheard = 0

    def connection_made(self, transport: Any) -> None:
        """Refuse one connection too many."""
        super().connection_made(transport)
        # An answer is done, and no longer counted, when all of it has left.
        transport.set_write_buffer_limits(high=0)
        self._arriving = self.loop.time()
        if len(self.connections) > self.limits.connections:
            self.metrics.rejected["connections"] += 1
            self._refuse(unavailable("Too many connections."))

    def data_received(self, data: bytes) -> None:
        """Parse what came, within bounds."""
        if self._refused:
            return
        super().data_received(data)
        self._unheard += len(data)
        if self._unheard > MOST_UNHEARD and not self._refused:
            self._refuse(self._large())

    def on_message_begin(self) -> None:
        """Start a request's clock."""
        self._arriving = self.loop.time()
        self._head = self._unheard = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header's bytes, a trailer's too."""
        self._head += len(name) + len(value)
        if self._head > MOST_HEAD:
            raise ValueError("the head is too large")
        self._unheard = 0
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass a piece of a body on."""
        self._unheard = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop a request's clock."""
        self._arriving = None
        self._unheard = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the API's shape."""
        self._refuse(self._large() if self._head > MOST_HEAD else ApiError(400, msg))

    def cut(self) -> None:
        """Drop an answer that has begun and cannot end in time."""
        if self.cycle is not None and self.cycle.response_started:
            self.cycle.disconnected = True
            self.transport.abort()

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been too slow."""
        if self.transport.get_write_buffer_size():
            self._unsent = self._unsent or now
            if now - self._unsent > self.limits.arrival:
                self.metrics.rejected["unread"] += 1
                self.transport.abort()
            return
        self._unsent = None
        if self._refused or self._arriving is None:
            return
        if self.flow.read_paused:  # it waits for this server
            self._arriving = now
        elif now - self._arriving > self.limits.arrival:
            self.metrics.rejected["slow"] += 1
            self._refuse(too_slow(self.limits.arrival))

    def _large(self) -> ApiError:
        self.metrics.rejected["head"] += 1
        return ApiError(431, "The request's head is too large.")

    def _refuse(self, failure: ApiError) -> None:
        """Answer and close; only close where an earlier request's answer is still to come."""
        self._refused = True
        self.metrics.requests["none", str(failure.status)] += 1
        cycle = self.cycle
        if (
            cycle is None
            or cycle.response_complete
            or (cycle.more_body and not (cycle.response_started or self.pipeline))
        ):
            body = failure.body()
            headers = (
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
                *failure.headers,
            )
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            self.transport.write(STATUS_LINE[failure.status] + lines.encode() + b"\r\n" + body)
        self.transport.close()


def sweep(connections: Iterable[Any], now: float) -> None:
    """Close every connection whose client has been too slow."""
    for connection in list(connections):
        connection.sweep(now)
