"""What the API promises, over real sockets."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading

import numpy as np
import pytest

from apps.serve.conftest import NAME, Server, answer, refused, running, until
from asterisk.cli.serve import main

LONG = "a long text of many words " * 200


def floats(body) -> np.ndarray:
    assert [entry["index"] for entry in body["data"]] == list(range(len(body["data"])))
    return np.array([entry["embedding"] for entry in body["data"]], np.float32)


def test_a_text(server, runtime):
    status, body = server.embed("a text")
    assert status == 200
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["object"] == "list"
    assert body["model"] == NAME
    assert set(body["data"][0]) == {"object", "index", "embedding"}
    assert body["data"][0]["object"] == "embedding"
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert np.array_equal(floats(body), runtime.encode(["a text"]))


@pytest.mark.parametrize("dimensions", [None, 1, 100, 256])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_every_bit_is_the_runtimes(server, runtime, lines, encoding, dimensions):
    texts = [*lines[:60], "\ud800", "null\0byte", LONG, *lines[:3]]
    status, body = server.embed(texts, dimensions=dimensions, encoding_format=encoding)
    assert status == 200
    if encoding == "base64":
        for entry in body["data"]:
            entry["embedding"] = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
    expected = runtime.encode(texts, dim=dimensions)
    assert floats(body).tobytes() == expected.tobytes()
    tokens = sum(len(runtime.tokenize(text)) for text in texts)
    assert body["usage"]["prompt_tokens"] == tokens


@pytest.fixture
def signals():
    """Leave this process as it was: a server that ran in it has changed its signals."""
    handlers = {it: signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_checkpoint_folder_is_served_too(toy_folder, lines, signals):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    it, answers = Server.__new__(Server), []
    it.host, it.port = "127.0.0.1", port

    def ask() -> None:
        try:
            until(lambda: socket.socket().connect_ex((it.host, port)) == 0, 60)
            answers.append(json.loads(it.call("GET", "/v1/models")[2])["data"])
            answers.append(it.embed(lines[:10]))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=ask)
    client.start()
    assert main([str(toy_folder), "--port", str(port)]) == 0
    client.join()
    models, (status, body) = answers
    assert [model["id"] for model in models] == [NAME]
    assert status == 200
    assert floats(body).shape == (10, 256)


@pytest.fixture(scope="module")
def with_ids(tflite):
    with running(tflite, "--threads", 2, "--accept-token-ids") as it:
        yield it


def test_token_ids_are_texts_of_this_tokenizer(with_ids, runtime, lines):
    server = with_ids
    ids = [runtime.tokenizer.encode(text) for text in lines[:5]]
    status, many = server.embed(ids)
    assert status == 200
    assert floats(many).tobytes() == runtime.encode(lines[:5]).tobytes()
    assert many["usage"]["total_tokens"] == sum(map(len, ids))
    assert floats(server.embed(ids[0])[1]).tobytes() == floats(many)[:1].tobytes()
    assert server.embed([50256])[0] == 200


@pytest.mark.parametrize("ids", [[50257], [1, 50259], [[1], [100_000]], [-1], [[1], [-1]]])
def test_ids_of_another_tokenizer_name_langchains_setting(server, with_ids, ids):
    status, body = with_ids.embed(ids)
    assert server.embed([[1], [2]])[0] == server.embed([5, 6])[0] == 400
    assert status == 400
    assert "check_embedding_ctx_length=False" in body["error"]["message"]
    assert body["error"]["param"] == "input"


def test_long_texts_are_cut_and_counted(with_ids, runtime):
    server = with_ids
    before = server.metric("asterisk_truncated_texts_total")
    assert server.embed([LONG, "short"])[1]["usage"]["total_tokens"] == 513
    body = server.embed([[5] * 600])[1]
    assert np.array_equal(floats(body), floats(server.embed([[5] * 512])[1]))
    assert server.metric("asterisk_truncated_texts_total") == before + 2


def test_long_texts_are_refused_where_that_is_asked_for(tflite):
    with running(tflite, "--on-long", "error", "--accept-token-ids") as strict:
        for long in (LONG, [LONG], [[5] * 513]):
            status, body = strict.embed(long)
            assert (status, body["error"]["param"]) == (400, "input")
        assert "input[1]" in strict.embed(["short", LONG])[1]["error"]["message"]
        assert strict.embed([[5] * 512])[0] == 200


def test_models(server):
    status, _, body = server.call("GET", "/v1/models")
    assert status == 200
    models = json.loads(body)
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == [NAME]
    assert json.loads(server.call("GET", f"/v1/models/{NAME}")[2]) == models["data"][0]
    status, _, body = server.call("GET", "/v1/models/other")
    assert (status, refused(body)["code"]) == (404, "model_not_found")


def test_names_that_requests_may_give(tflite):
    with running(tflite, "--model-name", "a", "--model-name", "b", "--strict") as it:
        for name in (NAME, "a", "b"):
            status, body = it.embed("x", model=name)
            assert (status, body["model"]) == (200, NAME)
        status, body = it.embed("x", model="c")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert it.embed("x", model=None)[0] == 400


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/chat/completions", "/%00", "/v1embeddings"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(server, method, path):
    status, _, body = server.call(method, path)
    assert status == 404
    assert refused(body)["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("OPTIONS", "/embeddings/", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/metrics", "GET, HEAD"),
    ],
)
def test_other_methods(server, method, path, allow):
    status, headers, body = server.call(method, path)
    assert (status, set(headers["allow"].split(", "))) == (405, set(allow.split(", ")))
    refused(body)


def test_head_has_the_length_and_no_body(server):
    for path in ("/health", "/v1/models", "/metrics"):
        status, headers, body = server.call("HEAD", path)
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
    assert server.call("HEAD", "/v1/embeddings")[0] == 405


def test_http_1_0_is_answered_and_closed(server):
    body = json.dumps({"model": NAME, "input": "x"}).encode()
    with server.connect() as it:
        it.sendall(b"POST /v1/embeddings HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = answer(it)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert b"chunked" not in head.lower()
    assert json.loads(rest)["data"]


def test_pipelined_requests_are_answered_in_order(server):
    texts = [f"text {'and more ' * (9 - i)}" for i in range(10)]
    sent = b""
    for text in texts:
        body = json.dumps({"model": NAME, "input": text, "dimensions": 2}).encode()
        sent += b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        sent += body
    sent += b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with server.connect() as it:
        it.sendall(sent)
        got = answer(it)
    bodies = [part.splitlines()[0] for part in got.split(b"\r\n\r\n")[1:]]
    expected = [server.embed(text, dimensions=2)[1] for text in texts]
    assert [json.loads(body) for body in bodies] == [*expected, {"status": "ok"}]


def test_curl_waits_for_no_leave_that_would_be_refused(server):
    with server.connect() as it:
        it.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        got = answer(it)
    assert got.startswith(b"HTTP/1.1 413 ")
    with server.connect() as it:
        body = json.dumps({"model": NAME, "input": "x"}).encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        it.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert it.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        it.sendall(body)
        assert answer(it).startswith(b"HTTP/1.1 200 ")
