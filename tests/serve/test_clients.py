"""The official client and LangChain's embeddings, as their users have them."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from serve.conftest import NAME

openai = pytest.importorskip("openai")


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as it:
        yield it


def test_openai(client, runtime, lines):
    # Without an encoding the client itself asks for base64.
    got = client.embeddings.create(model=NAME, input=lines[:20])
    vectors = np.array([entry.embedding for entry in got.data], np.float32)
    assert np.array_equal(vectors, runtime.encode(lines[:20]))
    assert [entry.index for entry in got.data] == list(range(20))
    assert got.model == NAME
    assert got.usage.total_tokens == sum(len(runtime.tokenize(line)) for line in lines[:20])
    short = client.embeddings.create(
        model=NAME, input="a text", dimensions=64, encoding_format="float", user="somebody"
    )
    vector = np.array(short.data[0].embedding, np.float32)
    assert np.array_equal(vector, runtime.encode("a text", dim=64))
    text = client.embeddings.create(model=NAME, input=[5, 6], encoding_format="base64")
    assert len(base64.b64decode(text.data[0].embedding)) == 1024
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "asterisk"


def test_openai_knows_the_errors(client, server):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=NAME, input="")
    assert caught.value.param == "input"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=NAME, input="x", extra_body={"unknown": 1})


@pytest.fixture
def embeddings():
    try:
        from langchain_openai import OpenAIEmbeddings
    except (ImportError, TypeError) as failure:  # TypeError: with an older typing-extensions
        pytest.skip(f"langchain-openai cannot be imported: {failure}")
    return OpenAIEmbeddings


def test_langchain_that_sends_texts(server, runtime, lines, embeddings):
    it = embeddings(
        model=NAME,
        base_url=f"{server.url}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
    )
    got = np.array(it.embed_documents(lines[:30]), np.float32)
    assert np.array_equal(got, runtime.encode(lines[:30]))
    assert np.array_equal(np.array(it.embed_query("a"), np.float32), runtime.encode("a"))


def test_langchain_that_sends_ids_is_told_how_not_to(server, embeddings, monkeypatch):
    import tiktoken.registry

    # cl100k_base is a download; this has its place, its 256 bytes, and ids of its size.
    monkeypatch.setitem(
        tiktoken.registry.ENCODINGS,
        "cl100k_base",
        tiktoken.Encoding(
            "cl100k_base",
            pat_str=r"\S+|\s+",
            mergeable_ranks={bytes([byte]): 60_000 + byte for byte in range(256)},
            special_tokens={},
        ),
    )
    it = embeddings(model=NAME, base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        it.embed_documents(["some text"])
