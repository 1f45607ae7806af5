"""Clients as their users have them: OpenAI's, LangChain's, LlamaIndex's, curl, Java, urllib."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from apps.serve.conftest import NAME

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
    text = client.embeddings.create(model="other", input="a", encoding_format="base64")
    assert text.model == NAME
    assert len(base64.b64decode(text.data[0].embedding)) == 1024
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "asterisk"


def test_openai_knows_the_errors(client, server):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=NAME, input="")
    assert caught.value.param == "input"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model=f"{NAME}:other", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=NAME, input=[5, 6])


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


def test_llama_index(server, runtime, lines):
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    it = like.OpenAILikeEmbedding(model_name=NAME, api_base=f"{server.url}/v1", api_key="none")
    got = np.array(it.get_text_embedding_batch(lines[:30]), np.float32)
    assert np.array_equal(got, runtime.encode(lines[:30]))
    assert np.array_equal(np.array(it.get_query_embedding("a"), "f4"), runtime.encode("a"))


def test_hugging_face_hub(server, runtime, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this one is at home
    hub.close_session()
    client = hub.InferenceClient(model=f"{server.url}/embed")
    got = client.feature_extraction("a text", normalize=True, truncate=True)
    assert np.array_equal(np.float32(got), runtime.encode(["a text"]))


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_curl(server, runtime, option):
    about = subprocess.run(["curl", "--version"], capture_output=True, check=False, text=True)
    if option == "--http2" and "HTTP2" not in about.stdout:
        pytest.skip("this curl has no HTTP/2")
    body = json.dumps({"model": NAME, "input": "hello"})
    url = f"{server.url}/v1/embeddings"
    asked = ["curl", "--silent", "--show-error", option, "-H", "Content-Type: application/json"]
    # Twice on one connection: what follows an upgrade that was ignored is read as HTTP/1.1.
    done = subprocess.run(
        [*asked, "-d", body, url, "--next", *asked[1:], "-d", body, url],
        capture_output=True,
        check=True,
        timeout=30,
    )
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second
    assert np.array_equal(np.float32(first["data"][0]["embedding"]), runtime.encode("hello"))


def test_curl_with_no_content_type_of_its_own_and_no_v1(server):
    asked = ["curl", "--silent", f"{server.url}/embeddings", "-d", '{"input":"hello"}']
    done = subprocess.run(asked, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == server.embed("hello")[1]


def test_java(server, tmp_path):
    """Its first request asks for HTTP/2 by `Upgrade: h2c`, body and all."""
    if not shutil.which("java"):
        pytest.skip("no java")
    source = Path(__file__).with_name("Embed.java")
    asked = ["java", str(source), f"{server.url}/v1/embeddings", NAME]
    done = subprocess.run(asked, capture_output=True, check=False, timeout=120, cwd=tmp_path)
    if b"compile" in done.stderr.lower():
        pytest.skip("java does not run single-file source here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0::2] == ["200 HTTP_1_1"] * 2
    assert [json.loads(line) for line in lines[1::2]] == [
        server.embed(text)[1] for text in ("text 0", "text 1")
    ]


def test_urllib(server, runtime):
    """It closes after each answer, and hears nothing before it has sent all."""
    url = f"{server.url}/v1/embeddings"
    body = json.dumps({"input": "a"}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body)) as got:
        vector = np.float32(json.load(got)["data"][0]["embedding"])
    assert np.array_equal(vector, runtime.encode("a"))
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.urlopen(urllib.request.Request(url, b" " * 20_000_000))
    assert failure.value.code == 413
