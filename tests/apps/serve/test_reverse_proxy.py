"""nginx in front, with the very piece of configuration that docs/serving.md has."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess

import pytest
from conftest import ROOT

from apps.serve.conftest import NAME, Server, answer, until

PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@pytest.fixture
def proxied(server, tmp_path):
    if not shutil.which("nginx"):
        pytest.skip("no nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    piece = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S)[1]
    piece = piece.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "127.0.0.1:8080", f"127.0.0.1:{server.port}"
    )
    piece = piece.replace("header_timeout 10s", "header_timeout 1s")
    folders = "".join(f"{name}_temp_path {tmp_path}/{name};\n" for name in PATHS)
    top = f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error; events {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{top}http {{ access_log off;\n{folders}{piece}}}\n")
    process = subprocess.Popen(["nginx", "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error"])
    it = Server.__new__(Server)
    it.host, it.port = "127.0.0.1", port
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield it
    finally:
        process.terminate()
        process.wait(10)


def test_nginx_passes_requests_on_and_holds_back_slow_clients(proxied, server):
    for _ in range(3):
        assert proxied.embed(["a text"] * 100) == server.embed(["a text"] * 100)
    body = b" " * (5 << 20)
    assert proxied.call("POST", "/v1/embeddings", body)[0] == 413
    connections = server.metric("asterisk_connections")
    with proxied.connect(10) as it:
        it.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n")
        assert answer(it)[9:12] in (b"", b"408")
    assert server.metric("asterisk_connections") <= connections
    data = json.dumps({"model": NAME, "input": ["x"] * 500}).encode()
    with proxied.connect(30) as it:  # one that closes after each request
        it.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n")
        it.sendall(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        assert answer(it).startswith(b"HTTP/1.1 200 ")
