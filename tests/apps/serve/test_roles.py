"""Queries and documents through the API: a field of the request, or the model's name."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from asterisk.apps.serve.api import ApiError, EncodeRequest, Rules, parse_embeddings
from asterisk.apps.serve.service import Workers
from asterisk.runtimes.runtime import Runtime
from asterisk.tokenizer import gpt2

TEXTS = ["how plants make sugar", "a text"]
PROMPTS = {"query": "query: ", "document": "", "passage": "passage: ", "s2p:x": "topic: "}


def floats(body) -> np.ndarray:
    return np.array([entry["embedding"] for entry in body["data"]], np.float32)


@pytest.mark.parametrize(
    ("fields", "call", "options"),
    [
        ({}, "encode", {}),
        ({"input_type": None}, "encode", {}),
        ({"input_type": "query"}, "encode_query", {}),
        ({"input_type": "document"}, "encode_document", {}),
        ({"input_type": "passage"}, "encode", {"prompt_name": "passage"}),
        ({"model": "prompted:query"}, "encode_query", {}),
        ({"model": "prompted:document"}, "encode_document", {}),
        ({"model": "prompted:passage"}, "encode", {"prompt_name": "passage"}),
        ({"model": "e5:latest"}, "encode", {}),
        ({"model": "e5:latest:query"}, "encode_query", {}),
        ({"model": "prompted:query", "input_type": "query"}, "encode_query", {}),
    ],
    ids=str,
)
def test_every_bit_is_the_runtimes(e5, own, fields, call, options):
    status, body = e5.embed(TEXTS, **{"model": "prompted", **fields})
    assert status == 200
    assert body["model"] == "prompted"
    assert floats(body).tobytes() == getattr(own, call)(TEXTS, **options).tobytes()


def test_a_prompts_tokens_are_counted(e5, own):
    used = e5.embed("a text", model="prompted:query")[1]["usage"]["total_tokens"]
    assert used == len(own.tokenize("query: a text")) == 4
    long = "word " * 600
    before = e5.metric("asterisk_truncated_texts_total")
    status, body = e5.embed(long, model="prompted", input_type="query")
    assert (status, body["usage"]["total_tokens"]) == (200, 512)
    assert floats(body).tobytes() == own.encode_query([long]).tobytes()
    assert e5.metric("asterisk_truncated_texts_total") == before + 1


def test_the_names_are_listed(e5):
    names = [f"{name}{end}" for name in ("prompted", "e5:latest")
             for end in ("", ":document", ":passage", ":query")]  # fmt: skip
    listed = json.loads(e5.call("GET", "/v1/models")[2])["data"]
    assert [model["id"] for model in listed] == names
    assert json.loads(e5.call("GET", "/v1/models/prompted:document")[2]) == listed[1]
    assert e5.call("GET", "/v1/models/prompted:other")[0] == 404


def test_a_model_without_prompts_takes_either_role(server, runtime):
    expected = runtime.encode(["a text"]).tobytes()
    for fields in ({"input_type": "query"}, {"input_type": "passage"}, {"model": "toy:document"}):
        status, body = server.embed("a text", **fields)
        assert (status, floats(body).tobytes()) == (200, expected)


def rules(**changes) -> Rules:
    values = {"models": ("m",), "dimensions": 8, "tokens": 100, "texts": 10, "prompts": PROMPTS}
    return Rules(**{**values, "token_ids": True, "strict": True, **changes})


def parsed(rules: Rules, **fields):
    return parse_embeddings(json.dumps({"model": "m", "input": "x", **fields}).encode(), rules)


@pytest.mark.parametrize(
    ("fields", "status", "param", "message"),
    [
        ({"input_type": "clustering"}, 400, "input_type", "'query', 'document', 'passage'"),
        ({"input_type": ""}, 400, "input_type", "there are"),
        ({"input_type": 1}, 400, "input_type", "must be a string"),
        ({"input_type": "query", "model": "m:document"}, 400, "input_type", "asks for 'document'"),
        ({"input_type": "document", "model": "m:passage"}, 400, "input_type", "for 'passage'"),
        ({"model": "m:other"}, 404, "model", "'m:query' or 'm:document'"),
        ({"model": "m:"}, 404, "model", "does not exist"),
        ({"model": ":query"}, 404, "model", "does not exist"),
        ({"model": "other:query"}, 404, "model", "does not exist"),
        ({"model": "m:query", "input": [1, 2]}, 400, "input", "get no prompt"),
        ({"input_type": "query", "input": [[1]]}, 400, "input", "get no prompt"),
        ({"input": [1, 0]}, 400, "input", "special token 0"),
        ({"input": [[5], [5, 7]]}, 400, "input", "add_special_tokens=False"),
        ({"input": [100]}, 400, "input", "another tokenizer's"),
    ],
    ids=str,
)
def test_what_contradicts_or_is_not_there_is_refused(fields, status, param, message):
    with pytest.raises(ApiError, match=message) as failure:
        parsed(rules(special=frozenset({0, 7})), **fields)
    assert (failure.value.status, failure.value.param) == (status, param)


def test_prompts_that_are_asked_for():
    assert parsed(rules(), model="m:s2p:x").prompt == "topic: "
    assert parsed(rules(default_prompt="usual: ")).prompt == "usual: "
    assert parsed(rules(default_prompt="usual: "), input_type="document").prompt == ""
    assert parsed(rules(default_prompt="usual: "), input=[1, 2]).items == [[1, 2]]
    assert parsed(rules(prompts={}, default_prompt=""), model="m:passage").prompt == ""
    assert parsed(rules(), model="m:document", input=[1, 2]).items == [[1, 2]]
    named = rules(models=("m", "m:query"))  # a name that is given wins
    assert parsed(named, model="m:query").prompt == ""
    assert parsed(named, model="m:query:query").prompt == "query: "


def test_another_models_name_is_taken_unless_that_is_refused():
    lax = rules(strict=False, default_prompt="usual: ")
    for model in (None, "", "text-embedding-3-small", "nomic-embed-text:latest", "other:query"):
        assert parsed(lax, model=model).prompt == "usual: "
        assert parsed(lax, model=model, input_type="query").prompt == "query: "
        with pytest.raises(ApiError):
            parsed(rules(), model=model)
    assert parsed(lax, model="m:query").prompt == "query: "
    with pytest.raises(ApiError, match="does not exist here"):
        parsed(lax, model="m:other")  # a prompt of this model that it does not have


class Around(Runtime):
    """A runtime with special tokens around a text, which keeps the ids that it is given."""

    def __init__(self) -> None:
        tokenizer = gpt2()
        tokenizer.prefix, tokenizer.suffix = (1000,), (2000,)
        self.tokenizer, self.longest, self.truncated = tokenizer, 8, 0
        self.config = SimpleNamespace(normalize=False)
        self._counting = threading.Lock()
        self.given: list[list[int]] = []

    def embed_ids(self, ids):
        self.given.append(list(ids))
        return np.array([3, 4], np.float32)


@pytest.mark.parametrize("on_long", ["truncate", "error"])
def test_special_tokens_stand_around_texts_and_ids(on_long):
    async def embedded(*items, prompt=""):
        runtime = Around()
        workers = Workers(runtime, 1, 100, on_long)
        request = EncodeRequest(list(items), 2, lambda _, row: row.tobytes(), 8, prompt)
        job = workers.submit(request)
        await job.finished
        assert workers.close(10)
        return runtime.given, job

    given, job = asyncio.run(embedded("a text", prompt="query: "))
    assert given == [[1000, 22766, 25, 257, 2420, 2000]]
    assert (job.tokens, job.truncated) == (6, 0)
    assert np.frombuffer(job.entries[0], "f4").tolist() == [3, 4]  # as the folder says
    assert asyncio.run(embedded([5, 6]))[0] == [[1000, 5, 6, 2000]]
    for long in ("word " * 20, [5] * 20):
        given, job = asyncio.run(embedded(long))
        if on_long == "error":
            assert "more than 8 tokens" in job.failure.message
            continue
        assert [len(ids) for ids in given] == [8]
        assert (given[0][0], given[0][-1]) == (1000, 2000)
        assert (job.tokens, job.truncated) == (8, 1)
