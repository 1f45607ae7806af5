"""What people pass as texts and as numbers, at every door that takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import asterisk
from asterisk.apps.classify.head import zero_shot
from asterisk.apps.dedup.deduplication import deduplicate
from asterisk.apps.search import Index
from asterisk.common.errors import UsageError
from asterisk.common.vectors import similarity, truncate
from asterisk.evaluation.logistic_regression import HeadRecipe
from asterisk.integrations import LazyRuntime
from asterisk.integrations.sentence_transformers import SentenceEncoder

TEXTS = ["one text", "another"]
NO_TEXTS = {
    "dict": {"k": "a text"},
    "dict_keys": {"k": "a text"}.keys(),
    "set": {"a text"},
    "frozenset": frozenset(["a text"]),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "PosixPath": Path("a"),
    "ndarray of 0 axes": np.array("x"),
    "ndarray of 2 axes": np.array([["a", "b"]]),
    "None": None,
    "int": 3,
    "float": 3.5,
    "bool": True,
    "object": object(),
}
NO_TEXT_WITHIN = {
    "item 0 is list": [["a", "b"]],
    "item 1 is int": ["a", 3],
    "item 1 is NoneType": ("a", None),
    "item 0 is bytes": [b"a"],
    "item 0 is float64": np.zeros(3),
    "item 0 is bytes_": np.array([b"a"]),
    "item 1 is float": np.array(["a", float("nan")], object),
    "item 2 is PosixPath": iter(["a", "b", Path("c")]),
}
MANY = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "array": np.array(TEXTS),
    "array of objects": np.array(TEXTS, object),
    "values of a dict": dict(enumerate(TEXTS)).values(),
    "generator": (text for text in TEXTS),
}


@pytest.fixture(scope="module")
def folder(artifact_of):
    return artifact_of("onnx", "int8")


@pytest.fixture(scope="module")
def runtime(folder):
    with asterisk.load(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def doors(folder, runtime):
    """Everything that takes a list of texts; the second half takes no string alone."""
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    pytest.importorskip("sklearn")
    from asterisk.integrations.langchain import AsteriskEmbeddings
    from asterisk.integrations.llama_index import AsteriskEmbedding
    from asterisk.integrations.sklearn import AsteriskVectorizer

    lazy, encoder = LazyRuntime(folder), SentenceEncoder(folder)
    one_too = [
        runtime.encode,
        runtime.encode_query,
        runtime.encode_document,
        lazy.encode,
        encoder.encode,
        encoder.encode_query,
        encoder.encode_document,
    ]
    lists_only = [
        AsteriskEmbeddings(folder).embed_documents,
        AsteriskEmbedding(folder).get_text_embedding_batch,
        AsteriskVectorizer(folder).fit,
        AsteriskVectorizer(folder).fit(TEXTS).transform,
        lambda texts: zero_shot(runtime, texts),
        lambda texts: deduplicate(texts, runtime),
    ]
    return one_too, lists_only


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_what_is_no_list_of_texts_is_refused_by_its_type(doors, kind):
    for door in doors[0] + doors[1]:
        if kind == "None" and door in doors[0][-3:]:  # their `inputs` may be left out
            continue
        with pytest.raises(UsageError, match=f"must be .*a? ?list of strings, not {kind}$"):
            door(NO_TEXTS[kind])


@pytest.mark.parametrize("item", NO_TEXT_WITHIN)
def test_an_item_that_is_no_text_is_named_with_its_place(doors, item):
    given = NO_TEXT_WITHIN[item]
    given = list(given) if item.endswith("PosixPath") else given
    for door in doors[0] + doors[1]:
        with pytest.raises(UsageError, match=f"must be .*list of strings, but {item}$"):
            door(iter(given) if item.endswith("PosixPath") else given)


def test_a_string_alone_is_no_list_where_one_is_needed(doors):
    for door in doors[1]:
        with pytest.raises(UsageError, match="list of strings, not str"):
            door("one text")


@pytest.mark.parametrize("kind", MANY)
def test_every_list_of_texts_gives_the_same_vectors(runtime, kind):
    assert np.array_equal(runtime.encode(MANY[kind]), runtime.encode(TEXTS))


def test_pandas_columns_are_lists_and_tables_are_not(runtime, folder):
    pandas = pytest.importorskip("pandas")
    expected = runtime.encode(TEXTS)
    for column in (pandas.Series(TEXTS, index=[7, 3]), pandas.Series(TEXTS, dtype="string")):
        assert np.array_equal(runtime.encode(column), expected)
        assert LazyRuntime(folder).documents(column) == expected.tolist()
    with pytest.raises(UsageError, match="not DataFrame of 2 axes"):
        runtime.encode(pandas.DataFrame({"text": TEXTS}))


def test_a_query_is_one_string(tmp_path, folder, runtime):
    with Index.create(tmp_path / "a.db", folder) as index:
        for wrong in ({"a": "b"}, b"x", ["a"], None, Path("a"), np.array("x")):
            with pytest.raises(UsageError, match=f"must be a string, not {type(wrong).__name__}"):
                index.search(wrong, 3, runtime)
        for k in (True, 2.0, 0, "3"):
            with pytest.raises(UsageError, match="k must be 1 or more"):
                index.search("a", k, runtime)
        assert index.search("a", np.int64(3), runtime) == []


def test_whole_numbers_in_the_integrations(folder):
    langchain = pytest.importorskip("asterisk.integrations.langchain")
    llama_index = pytest.importorskip("asterisk.integrations.llama_index")
    sklearn = pytest.importorskip("asterisk.integrations.sklearn")
    ways = [
        lambda dim: langchain.AsteriskEmbeddings(folder, dim=dim).embed_query("a"),
        lambda dim: llama_index.AsteriskEmbedding(folder, dim=dim).get_query_embedding("a"),
        lambda dim: sklearn.AsteriskVectorizer(folder, dim=dim).fit_transform(["a"])[0],
        lambda dim: SentenceEncoder(folder).encode("a", truncate_dim=dim),
    ]
    for way in ways:
        assert len(way(np.int64(64))) == 64
        for wrong in (True, 64.0, "64", 0):
            with pytest.raises(UsageError, match="dim must be 1 "):
                way(wrong)


def test_whole_numbers_of_numpy_are_numbers_and_true_is_none(folder, runtime):
    for dim in (np.int64(64), np.uint8(64), np.array(64)):
        assert np.array_equal(runtime.encode("a", dim=dim), runtime.encode("a", dim=64))
        assert SentenceEncoder(folder, truncate_dim=dim).encode("a").shape == (64,)
        assert truncate(runtime.encode(["a"]), dim).shape == (1, 64)
    bits = runtime.encode(["a"], precision="ubinary")
    assert similarity(bits, bits, dim=np.int64(256)) == 1
    for wrong in (True, np.True_, 64.0, np.float32(64), "64", 0, -1, 257):
        with pytest.raises(UsageError, match="dim must be 1 to 256"):
            runtime.encode("a", dim=wrong)
    with asterisk.load(folder, threads=np.int64(2), max_memory=np.int64(1 << 30)) as two:
        assert np.array_equal(two.encode(TEXTS), runtime.encode(TEXTS))
    assert LazyRuntime(folder, np.int32(2)) == LazyRuntime(folder, 2)
    for wrong in (True, 1.0, "1", 0):
        with pytest.raises(UsageError, match="threads must be 1 to"):
            asterisk.load(folder, threads=wrong)
        with pytest.raises(UsageError, match="threads must be 1 or more"):
            deduplicate(TEXTS, runtime, threads=wrong)
    assert HeadRecipe(epochs=np.int64(3)).epochs == 3
    with pytest.raises(UsageError, match="hidden must be"):
        HeadRecipe(hidden=True)


def test_precisions_are_those_of_sentence_transformers(runtime):
    quantize = pytest.importorskip("sentence_transformers.quantization").quantize_embeddings
    for dim in (60, 256):
        whole = runtime.encode(TEXTS, dim=dim)
        for precision in ("binary", "ubinary"):
            found = runtime.encode(TEXTS, dim=dim, precision=precision)
            expected = quantize(whole, precision)
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
        small = runtime.encode(TEXTS, dim=dim, precision="int8")
        assert small.dtype == np.int8
        assert (np.abs(small).max(axis=1) == 127).all()
        assert np.diag(similarity(small, whole)).min() > 0.999
        one = runtime.encode(TEXTS[0], dim=dim, precision="int8")
        assert np.array_equal(one, small[0])
    assert runtime.encode([], precision="binary").shape == (0, 32)
    for wrong in ("int4", "uint8", None, 8, ["int8"]):
        with pytest.raises(UsageError, match="precision must be one of float32, int8, binary"):
            runtime.encode(TEXTS, precision=wrong)
