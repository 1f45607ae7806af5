"""A real server in a process of its own, and what talks to it over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAME = "toy"


class Server:
    """One running `asterisk-serve`."""

    def __init__(self, artifact: Path, *options: object, before: list[str] = (), env=None) -> None:
        command = [sys.executable, "-m", "asterisk.cli.serve", str(artifact)]
        options = (*options, *([] if "--socket" in options else ["--port", 0]))
        self.process = subprocess.Popen(
            [*before, *command, *map(str, options)],
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **(env or {})},
        )
        self.messages = ""
        try:
            self._wait()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait(self) -> None:
        """Read what it tells until it says where it listens."""
        while not re.search(r" on (http:/)?/\S+\n$", self.messages):
            ready, _, _ = select.select([self.process.stderr], [], [], 60)
            assert ready, self.messages
            line = self.process.stderr.readline().decode()
            assert line, self.messages
            self.messages += line
        if match := re.search(r" on http://(\S+):(\d+)\n$", self.messages):
            self.host, self.port = match[1].strip("[]"), int(match[2])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def embed(self, input: Any, **fields: Any) -> tuple[int, Any]:
        body = json.dumps({"model": NAME, "input": input, **fields}).encode()
        status, _, answer = self.call("POST", "/v1/embeddings", body)
        return status, json.loads(answer)

    def metric(self, name: str) -> float:
        page = self.call("GET", "/metrics")[2].decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.messages += self.process.communicate(timeout=30)[1].decode()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode


def refused(body: bytes) -> dict[str, Any]:
    """Check that a body has the API's error shape, and return its fields."""
    fields = json.loads(body)["error"]
    assert set(fields) == {"message", "type", "param", "code"}
    assert isinstance(fields["message"], str)
    assert fields["message"]
    assert isinstance(fields["type"], str)
    for name in ("param", "code"):
        assert fields[name] is None or isinstance(fields[name], str)
    return fields


def answer(it: socket.socket) -> bytes:
    """Read until the server closes."""
    parts = []
    while part := it.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def until(true, seconds: float = 10) -> None:
    """Wait for something that is going to be so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextlib.contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[Server]:
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def tflite(artifact_of) -> Path:
    for module in ("uvicorn", "starlette", "prometheus_client", "ai_edge_litert"):
        pytest.importorskip(module)
    return artifact_of("tflite", "int8")


@pytest.fixture(scope="session")
def server(tflite) -> Iterator[Server]:
    """One with two workers, for every test that leaves it as it was."""
    with running(tflite, "--threads", 2) as it:
        yield it


@pytest.fixture(scope="session")
def runtime(tflite):
    import asterisk

    with asterisk.load(tflite) as it:
        yield it


@pytest.fixture(scope="session")
def e5(prompted) -> Iterator[Server]:
    """One of a model with prompts, under a further name."""
    for module in ("uvicorn", "starlette"):
        pytest.importorskip(module)
    with running(prompted, "--model-name", "e5:latest") as it:
        yield it


@pytest.fixture(scope="session")
def own(prompted):
    """The runtime that `e5` serves."""
    import asterisk

    with asterisk.load(prompted) as it:
        yield it
