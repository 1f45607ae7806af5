"""What clients that were written for another server send, and get."""

from __future__ import annotations

import base64
import gzip
import json

import numpy as np
import pytest

from apps.serve.conftest import NAME, refused, running
from asterisk.cli.serve import main
from asterisk.common.vectors import similarity, to_binary, to_int8

BODY = json.dumps({"model": NAME, "input": "hello"}).encode()
OBSIDIAN = "app://obsidian.md"


def post(server, path: str, fields, **headers):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    status, got, answer = server.call("POST", path, body, headers)
    return status, got, json.loads(answer)


@pytest.mark.parametrize(
    "path", ["/embeddings", "/v1/embeddings/", "//v1/embeddings", "/v1//embeddings//"]
)
def test_a_path_may_be_written_in_other_ways(server, path):
    assert post(server, path, BODY)[2] == server.embed("hello")[1]


def test_models_without_v1_and_with_slashes(server):
    expected = server.call("GET", "/v1/models")[2]
    for path in ("/models", "/v1/models/", "//models/"):
        assert server.call("GET", path)[2] == expected
    assert json.loads(server.call("GET", f"/models/{NAME}/")[2])["id"] == NAME


@pytest.mark.parametrize(
    "body",
    [
        {"input": "hello"},
        {"model": "text-embedding-3-small", "input": "hello", "input_type": "query"},
        {"model": None, "input": "hello", "truncate": "NONE", "unknown": {"a": [1]}},
        b"\xef\xbb\xbf" + BODY,
    ],
    ids=["no model", "another's name", "fields that are not known", "a byte-order mark"],
)
def test_what_others_send_is_taken(server, body):
    status, _, answer = post(server, "/v1/embeddings", body)
    assert (status, answer) == (200, server.embed("hello")[1])
    assert answer["model"] == NAME


def test_bodies_in_gzip(server):
    zipped = gzip.compress(BODY)
    embed = "/v1/embeddings"
    assert post(server, embed, zipped, **{"Content-Encoding": "gzip"})[0] == 200
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 1 << 20
    for wrong, code in (
        (bomb, 413), (zipped[:-9], 400), (zipped + b"x", 400), (BODY, 400), (b"", 400)
    ):  # fmt: skip
        status, _, body = server.call("POST", embed, wrong, {"Content-Encoding": "gzip"})
        assert status == code
        refused(body)
    for encoding in ("br", "deflate", "gzip, gzip"):
        status, headers, body = server.call("POST", embed, zipped, {"Content-Encoding": encoding})
        assert (status, headers["accept-encoding"]) == (415, "gzip")
        refused(body)
    assert server.metric("asterisk_body_bytes") == 0


@pytest.mark.parametrize("dimensions", [None, 64, 3])
@pytest.mark.parametrize("dtype", ["int8", "binary", "ubinary"])
def test_vectors_in_fewer_bytes(server, runtime, lines, dtype, dimensions):
    vectors = runtime.encode(lines[:9], dim=dimensions)
    expected = to_int8(vectors) if dtype == "int8" else to_binary(vectors)
    if dtype == "binary":  # as sentence_transformers.util.quantize_embeddings has it
        expected = (expected.astype("i2") - 128).astype("i1")
    fields = {"output_dtype": dtype, "dimensions": dimensions}
    status, body = server.embed(lines[:9], **fields)
    assert status == 200
    assert [entry["embedding"] for entry in body["data"]] == expected.tolist()
    body = server.embed(lines[:9], encoding_format="base64", **fields)[1]
    got = [base64.b64decode(entry["embedding"]) for entry in body["data"]]
    assert got == [row.tobytes() for row in expected]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_rerank(e5, own, lines, path):
    documents = [*lines[:30], "a \ud800", lines[0]]
    fields = {"model": "rerank-v3.5", "query": "how plants make sugar", "documents": documents}
    status, _, answer = post(e5, path, fields)
    assert status == 200
    query, vectors = own.encode_query([fields["query"]]), own.encode_document(documents)
    expected = similarity(query, vectors)[0]
    order = [result["index"] for result in answer["results"]]
    assert sorted(order) == list(range(len(documents)))
    scores = np.array([result["relevance_score"] for result in answer["results"]])
    np.testing.assert_allclose(scores, expected[order], atol=1e-6)
    assert (np.diff(scores) <= 0).all()
    assert order.index(0) < order.index(31)  # the same text: the first one first
    assert set(answer["results"][0]) == {"index", "relevance_score"}
    assert answer["usage"]["total_tokens"] > 0
    objects = [{"text": text, "id": 1} for text in documents]
    more = {"documents": objects, "top_n": 3, "return_documents": True}
    cut = post(e5, path, {**fields, **more})[2]
    assert [result["index"] for result in cut["results"]] == order[:3]
    assert [result["document"]["text"] for result in cut["results"]] == [
        documents[index].encode(errors="replace").decode() for index in order[:3]
    ]


def test_rerank_refuses_what_cannot_be_meant(server):
    good = {"query": "q", "documents": ["a"]}
    for wrong, param in (
        ({"documents": ["a"]}, "query"),
        ({**good, "query": ""}, "query"),
        ({"query": "q"}, "documents"),
        *(
            ({**good, "documents": value}, "documents")
            for value in ([], "a", [""], [1], [[1]], [{}], [{"text": ""}], ["a", {"text": 1}], {})
        ),
        *(({**good, "top_n": value}, "top_n") for value in (0, -1, "1", 1.0)),
        ({**good, "return_documents": 1}, "return_documents"),
    ):
        status, _, body = server.call("POST", "/v1/rerank", json.dumps(wrong).encode())
        assert (status, refused(body)["param"]) == (400, param), wrong


def test_text_embeddings_inference(e5, own, lines):
    def vectors(**fields) -> np.ndarray:
        status, _, answer = post(e5, "/embed", fields)
        assert status == 200, answer
        return np.array(answer, np.float32)

    assert vectors(inputs=lines[:5]).tobytes() == own.encode(lines[:5]).tobytes()
    assert vectors(inputs="a", prompt_name="query").tobytes() == own.encode_query(["a"]).tobytes()
    asked = vectors(inputs="a", normalize=False, truncate=True, truncation_direction="Right")
    assert asked.tobytes() == own.encode(["a"], normalize=False).tobytes()
    assert vectors(inputs="word " * 900).tobytes() == own.encode(["word " * 900]).tobytes()
    for wrong in (
        {}, {"inputs": []}, {"inputs": ""}, {"inputs": 1}, {"inputs": "a", "normalize": 1},
        {"inputs": "a", "prompt_name": "other"}, {"inputs": "a", "truncation_direction": "Left"},
        {"inputs": "word " * 900, "truncate": False}, {"inputs": [[1]]},
    ):  # fmt: skip
        status, _, answer = post(e5, "/embed", wrong)
        assert status == 400, wrong
        assert set(answer) == {"error", "error_type"}
        assert answer["error_type"] == "validation"


def cors(origin: str, **headers: str) -> dict[str, str]:
    return {"Origin": origin, **{name.replace("_", "-"): it for name, it in headers.items()}}


def test_web_pages_that_may_ask(tflite, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret")
    file.chmod(0o600)
    allowed = ("--cors-origin", OBSIDIAN, "--cors-origin", "null")
    ask = {"Access_Control_Request_Method": "POST"}
    with running(tflite, "--token-file", file, *allowed) as server:
        for origin in (OBSIDIAN, "null"):
            wanted = "authorization,content-type,x-stainless-lang"
            headers = cors(origin, **ask, Access_Control_Request_Headers=wanted)
            status, got, _ = server.call("OPTIONS", "/v1/embeddings", None, headers)
            assert (status, got["access-control-allow-origin"]) == (200, origin)
            assert "POST" in got["access-control-allow-methods"]
            assert got["access-control-allow-headers"] == wanted
            token = {"Authorization": "Bearer s3cret"}
            for path, body, more, code in (
                ("/v1/embeddings", BODY, token, 200),
                ("/v1/embeddings", BODY, {}, 401),
                ("/v1/other", BODY, token, 404),
                ("/v1/models", BODY, token, 405),
                ("/v1/embeddings", b" " * 5_000_000, token, 413),
            ):
                status, got, _ = server.call("POST", path, body, {**cors(origin), **more})
                assert (status, got["access-control-allow-origin"]) == (code, origin)
        for method, more in (("OPTIONS", ask), ("POST", {})):
            headers = cors("https://example.org", **more)
            _, got, _ = server.call(method, "/v1/embeddings", BODY, headers)
            assert "access-control-allow-origin" not in got


def test_any_web_page_may_ask_where_that_is_allowed(tflite, server):
    with running(tflite, "--cors-origin", "*") as it:
        headers = cors("https://example.org")
        for path, code in (("/v1/embeddings", 200), ("/v1/other", 404)):
            status, got, _ = it.call("POST", path, BODY, headers)
            assert (status, got["access-control-allow-origin"]) == (code, "*")
    status, got, _ = server.call("POST", "/v1/embeddings", BODY, headers)
    assert status == 200
    assert "access-control-allow-origin" not in got


@pytest.mark.parametrize("wrong", ["example.org", "https://example.org/", "https://a.b/c", ""])
def test_what_is_no_origin_is_refused(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--cors-origin", wrong])
    assert "is not an origin" in capsys.readouterr().err
