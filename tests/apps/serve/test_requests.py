"""Bodies that nobody should send: always the API's error shape, never a failure."""

from __future__ import annotations

import http.client
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.serve.conftest import NAME, refused

GOOD = {"model": NAME, "input": "x"}

BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[1]",
    "null": b"null",
    "not UTF-8": b'{"model":"\xff","input":"x"}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "nested": b"[" * 100_000,
    "nested input": b'{"model":"toy","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested objects": b'{"a":' * 100_000,
    "NaN": b'{"model":"toy","input":"x","dimensions":NaN}',
    "infinite": b'{"model":"toy","input":[Infinity]}',
    "twice": b'{"model":"toy","input":"x","input":"y"}',
    "huge integer": b'{"model":"toy","input":[' + b"9" * 10_000 + b"]}",
    "large integer": b'{"model":"toy","input":[' + b"9" * 30 + b"]}",
    "huge float": b'{"model":"toy","input":[1e999]}',
    "raw null byte": b'{"model":"toy","input":"a\x00b"}',
}
WRONG = [
    {"model": NAME},
    {"model": 1, "input": "x"},
    *(
        GOOD | {"input": value}
        for value in (
            None, "", [], [""], [[]], ["a", ""], ["a", 1], ["a", [1]], [[1], "a"], [1, "a"], [1.0],
            [1], [[1]], [True], [[True]], [[1.5]], [None], {}, {"a": 1}, 1, True, [[[1]]], [{}],
            ["x"] * 2049,
        )
    ),
    *(GOOD | {"dimensions": value} for value in (0, -1, 257, 1.0, "8", True, [8], 10**30)),
    *(GOOD | {"encoding_format": value} for value in ("", "Float", "int8", 1, [], {})),
    *(GOOD | {"output_dtype": value} for value in ("", "uint8", "Float", 1, [], {})),
]  # fmt: skip


def post(server, body: bytes) -> tuple[int, bytes]:
    status, headers, answer = server.call("POST", "/v1/embeddings", body)
    assert headers["content-type"] == "application/json"
    return status, answer


@pytest.mark.parametrize("name", BAD)
def test_bodies_that_are_not_read(server, name):
    status, body = post(server, BAD[name])
    assert status == 400
    refused(body)


def test_requests_that_cannot_be_meant(server):
    for wrong in WRONG:
        status, body = post(server, json.dumps(wrong).encode())
        assert status in (400, 404), wrong
        refused(body)


def test_the_parameter_is_named(server):
    for name, value in (("dimensions", 0), ("encoding_format", "a"), ("input", [])):
        status, body = post(server, json.dumps(GOOD | {name: value}).encode())
        assert (status, refused(body)["param"]) == (400, name)


def test_null_is_what_was_not_given(server):
    fields = dict.fromkeys(("dimensions", "encoding_format", "output_dtype", "user", "model"))
    assert server.embed("x", **fields) == server.embed("x", user="somebody")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
names = st.sampled_from(["input", "model", "dimensions", "encoding_format", "query", "documents"])
likely = st.fixed_dictionaries(
    {"model": st.just(NAME) | values},
    optional={
        "input": st.text() | st.lists(st.text()) | st.lists(st.integers(0, 60_000)) | values,
        "dimensions": st.integers(-1, 300) | values,
        "encoding_format": st.sampled_from(["float", "base64", "x"]) | values,
        "output_dtype": st.sampled_from(["float", "int8", "binary", "ubinary", "x"]) | values,
        "inputs": st.text() | st.lists(st.text()) | values,
        "truncate": st.booleans() | values,
        "prompt_name": st.sampled_from(["query", "x"]) | values,
        "query": st.text() | values,
        "documents": st.lists(st.text() | st.dictionaries(st.just("text"), st.text())) | values,
        "top_n": st.integers(-1, 3) | values,
        "return_documents": st.booleans() | values,
    },
)
bodies = (
    st.binary(max_size=200)
    | (likely | values | st.dictionaries(names, values)).map(lambda it: json.dumps(it).encode())
    | st.builds(
        lambda whole, start, what: whole[:start] + what + whole[start:],
        likely.map(lambda it: json.dumps(it, ensure_ascii=False).encode(errors="surrogatepass")),
        st.integers(0, 100),
        st.binary(max_size=3),
    )
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(["/v1/embeddings", "/v1/rerank", "/embed"]), body=bodies)
def test_any_body(server, connection, path, body):
    connection.request("POST", path, body)
    got = connection.getresponse()
    answer = got.read()
    if got.status == 200:
        assert json.loads(answer)
        return
    assert got.status in (400, 404)
    if path == "/embed":
        assert json.loads(answer)["error_type"] in ("validation", "backend")
    else:
        refused(answer)


@pytest.fixture(scope="module")
def connection(server):
    it = http.client.HTTPConnection(server.host, server.port, timeout=30)
    yield it
    it.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 9x\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 100_000,
        b"GET /" + b"y" * (1 << 20),
    ],
)
def test_what_is_no_http(server, data):
    from apps.serve.conftest import answer

    with server.connect() as it:
        try:
            it.sendall(data)
            got = answer(it)
        except (ConnectionResetError, BrokenPipeError):  # refused while it was still sending
            got = b""
    if got:
        assert got[9:12] == b"400", got
    assert server.call("GET", "/health")[0] == 200
