"""LangChain's own store over an artifact."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest

import asterisk
from asterisk.common.errors import InputError, UsageError

pytest.importorskip("langchain_core")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from asterisk.integrations.langchain import AsteriskEmbeddings

TEXTS = [
    "The committee raised interest rates to slow inflation.",
    "Bake the loaf until the crust sounds hollow.",
    "The goalkeeper saved a penalty in the last minute.",
]


@pytest.fixture(scope="module")
def embeddings(artifact):
    with AsteriskEmbeddings(artifact) as it:
        yield it


def test_vectors_are_the_runtimes(embeddings, artifact):
    assert isinstance(embeddings, Embeddings)
    with asterisk.load(artifact) as runtime:
        expected = runtime.encode(TEXTS)
    found = embeddings.embed_documents(TEXTS)
    assert {type(row) for row in found} == {list}
    assert {type(value) for value in found[0]} == {float}
    np.testing.assert_array_equal(np.array(found, np.float32), expected)
    np.testing.assert_array_equal(np.float32(embeddings.embed_query(TEXTS[1])), expected[1])
    assert embeddings.embed_documents([]) == []


def test_the_asynchronous_ones_are_the_same(embeddings):
    async def both():
        return await asyncio.gather(
            embeddings.aembed_documents(TEXTS), embeddings.aembed_query(TEXTS[0])
        )

    documents, query = asyncio.run(both())
    assert documents == embeddings.embed_documents(TEXTS)
    assert query == documents[0]


def test_in_their_vector_store(embeddings):
    store = InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS, [{"place": place} for place in range(len(TEXTS))])
    for query, place in (("central bank policy", 0), ("making bread", 1), ("football match", 2)):
        found, score = store.similarity_search_with_score(query, k=1)[0]
        assert found.metadata["place"] == place
        assert -1 <= score <= 1
    asyncio.run(store.aadd_texts(["Sailing around the cape in winter storms."]))
    found = asyncio.run(store.asimilarity_search("a ship at sea", k=1))
    assert found[0].page_content.startswith("Sailing")
    retriever = store.as_retriever(search_kwargs={"k": 2})
    assert retriever.invoke("making bread")[0].page_content == TEXTS[1]


def test_fewer_dimensions_pickles_and_refusals(artifact):
    with AsteriskEmbeddings(artifact, threads=2, dim=64) as embeddings:
        vector = embeddings.embed_query("a text")
        assert len(vector) == 64
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        with pickle.loads(pickle.dumps(embeddings)) as again:
            assert again.embed_query("a text") == vector
            assert repr(again) == repr(embeddings)
        with pytest.raises(InputError):
            embeddings.embed_documents(["a text", ""])
    with pytest.raises(UsageError, match="dim must be"):
        AsteriskEmbeddings(artifact, dim=1_000).embed_query("a text")


def test_documents_and_queries_have_their_prompts(prompted):
    with AsteriskEmbeddings(prompted) as embeddings, asterisk.load(prompted) as runtime:
        documents, query = embeddings.embed_documents(TEXTS), embeddings.embed_query(TEXTS[0])
        np.testing.assert_array_equal(np.float32(documents), runtime.encode_document(TEXTS))
        np.testing.assert_array_equal(np.float32(query), runtime.encode_query(TEXTS[0]))
        assert documents[0] != query
