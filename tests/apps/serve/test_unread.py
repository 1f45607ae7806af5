"""Answers that are not read: what they may take, and that they give it back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.serve.conftest import NAME, answer, running, until
from asterisk.apps.serve.api import EncodeRequest, Rules, parse_embeddings
from asterisk.apps.serve.limits import MIB, ByteBudget, Limits, limits_for
from asterisk.apps.serve.service import Workers
from asterisk.tokenizer import gpt2

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
LIST = json.dumps({"model": NAME, "input": ["a"] * 2048}).encode()


def deaf(server, data: bytes) -> socket.socket:
    """Ask, and read nothing."""
    it = socket.socket()
    it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    it.settimeout(30)
    it.connect((server.host, server.port))
    it.sendall(HEAD % len(data) + b"\r\n" + data)
    return it


def test_thirty_long_lists_that_nobody_reads(tflite):
    """The bar is 75 MB of PSS; without a bound sixty took 265."""
    with running(tflite, "--timeout-arrival", 60) as server, contextlib.ExitStack() as stack:
        rollup = Path(f"/proc/{server.process.pid}/smaps_rollup")
        peak = 0
        for _ in range(30):
            stack.enter_context(deaf(server, LIST))
            peak = max(peak, pss(rollup))
            time.sleep(0.02)
        rejected = 'asterisk_rejected_total{reason="rate_limit_exceeded"}'
        until(lambda: server.metric(rejected) >= 20, 20)
        assert 0 < server.metric("asterisk_answer_bytes") <= Limits().answers
        until(lambda: server.metric("asterisk_queue_texts") == 0, 30)
        peak = max(peak, pss(rollup))
        code = 200
        while code == 200:
            stack.enter_context(deaf(server, LIST))
            code, headers, _ = server.call("POST", "/v1/embeddings", LIST)
        assert (code, headers["retry-after"]) == (429, "1")
        assert server.embed("a")[0] == 200  # for which there is room
        stack.close()  # all hang up
        until(lambda: server.metric("asterisk_answer_bytes") == 0)
        assert server.embed(["a"] * 2048)[0] == 200
        assert server.metric("asterisk_answer_bytes") == 0
        assert 20e6 < max(peak, pss(rollup)) <= 75e6


def pss(rollup: Path) -> int:
    lines = rollup.read_text().splitlines()
    return 1024 * next(int(it.split()[1]) for it in lines if it.startswith("Pss:"))


def test_a_late_reader_gets_all_of_it(server, runtime):
    with deaf(server, LIST) as it:
        until(lambda: 0 < server.metric("asterisk_answer_bytes") < 8 * MIB, 30)
        with contextlib.closing(server.connect()) as other:  # nobody waits for it
            other.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert answer(other).startswith(b"HTTP/1.1 200 ")
        it.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head, body, _ = answer(it).split(b"\r\n\r\n", 2)
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    read = json.loads(body[:length])
    assert [entry["index"] for entry in read["data"]] == list(range(2048))
    vector = runtime.encode(["a"])[0]
    assert all(np.array_equal(np.float32(entry["embedding"]), vector) for entry in read["data"])
    assert read["usage"] == {"prompt_tokens": 2048, "total_tokens": 2048}


class Longest:
    """A runtime whose numbers take the most characters."""

    longest = 512
    tokenizer = gpt2()
    config = SimpleNamespace(normalize=True)

    def __init__(self, size: int) -> None:
        self.row = np.full(size, -1.17549435e-38, np.float32)
        self.row[0] = -1

    def tokenize(self, text: str, on_long: str = "truncate") -> list[int]:
        return [1]

    def embed_ids(self, ids: list[int]) -> np.ndarray:
        return self.row


DTYPES = ("float", "int8", "binary", "ubinary")


def longest(texts: int, dimensions: int, **fields) -> EncodeRequest:
    rules = Rules(models=(), dimensions=dimensions, tokens=100, texts=texts)
    return parse_embeddings(json.dumps({"input": ["a"] * texts, **fields}).encode(), rules)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 300),
    st.integers(1, 20),
    st.sampled_from(DTYPES),
    st.sampled_from(["float", "base64"]),
)
def test_an_answer_takes_no_more_than_was_set_aside(size, count, dtype, encoding):
    async def entries() -> list[bytes]:
        workers = Workers(Longest(size), 1, 100, "truncate")
        job = workers.submit(request)
        await job.finished
        assert workers.close(10)
        assert job.failure is None
        return job.entries

    request = longest(count, size, output_dtype=dtype, encoding_format=encoding)
    made = asyncio.run(entries())
    assert len(json.loads(b"[" + b"".join(made) + b"]")) == count
    # 33 and 8 bytes are CPython's for a bytes object and its place in a list.
    assert sum(len(entry) + 33 + 8 for entry in made) <= request.answer_size


def test_a_budget_is_given_back_whatever_happens():
    budget = ByteBudget(100)
    with contextlib.suppress(ZeroDivisionError), budget.reserve() as one, budget.reserve() as two:
        assert one.grow(60)
        assert not two.grow(41, allow_first=True)
        assert two.grow(40, allow_first=True)
        assert budget.reserved == 100
        one.resize(10)
        assert two.grow(50)
        assert not one.grow(1)
        raise ZeroDivisionError
    assert budget.reserved == 0
    with budget.reserve() as alone:
        assert not alone.grow(1000)
        assert alone.grow(1000, allow_first=True)  # or it could never be answered


@pytest.mark.parametrize("room", [8 * MIB, 20 * MIB, 64 * MIB, 1 << 40])
def test_two_of_the_longest_lists_fit(room):
    limits = limits_for(room)
    size = longest(limits.texts, 256).answer_size
    assert 2 * size <= limits.answers <= min(room * 0.3, Limits().answers)


def test_worker_threads_share_one_deadline():
    class Stuck(Longest):
        def embed_ids(self, ids: list[int]) -> np.ndarray:
            time.sleep(1.5)
            return self.row

    async def close() -> float:
        workers = Workers(Stuck(4), 4, 100, "truncate")
        for _ in range(4):
            workers.submit(longest(1, 4))
        await asyncio.sleep(0.2)
        begin = time.monotonic()
        assert not workers.close(0.2)
        return time.monotonic() - begin

    assert asyncio.run(close()) < 0.6
