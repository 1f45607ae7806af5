"""LlamaIndex's own index over an artifact, without its network."""

from __future__ import annotations

import asyncio
import json
import pickle

import numpy as np
import pytest

import asterisk
from asterisk.common.errors import InputError, UsageError

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from asterisk.integrations.llama_index import AsteriskEmbedding

TEXTS = [
    "The committee raised interest rates to slow inflation.",
    "Bake the loaf until the crust sounds hollow.",
    "The goalkeeper saved a penalty in the last minute.",
]


@pytest.fixture(scope="module")
def embedding(artifact):
    it = AsteriskEmbedding(artifact)
    yield it
    it.close()


def test_vectors_are_the_runtimes(embedding, artifact):
    assert isinstance(embedding, BaseEmbedding)
    with asterisk.load(artifact) as runtime:
        expected = runtime.encode(TEXTS)
    batch = embedding.get_text_embedding_batch(TEXTS)
    np.testing.assert_array_equal(np.array(batch, np.float32), expected)
    np.testing.assert_array_equal(np.float32(embedding.get_query_embedding(TEXTS[2])), expected[2])
    assert embedding.get_text_embedding(TEXTS[0]) == batch[0]

    async def all_of_them():
        return (
            await embedding.aget_text_embedding_batch(TEXTS),
            await embedding.aget_query_embedding(TEXTS[0]),
            await embedding.aget_text_embedding(TEXTS[0]),
        )

    assert asyncio.run(all_of_them()) == (batch, batch[0], batch[0])


def test_in_their_index_and_store(embedding):
    nodes = [TextNode(text=text, id_=str(place)) for place, text in enumerate(TEXTS)]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    assert isinstance(index.vector_store, SimpleVectorStore)
    retriever = index.as_retriever(similarity_top_k=1)
    for query, place in (("central bank policy", 0), ("making bread", 1), ("football match", 2)):
        (found,) = retriever.retrieve(query)
        assert found.node.node_id == str(place)
        assert 0 < found.score <= 1
    (found,) = asyncio.run(retriever.aretrieve("making bread"))
    assert found.node.node_id == "1"
    index.insert_nodes([TextNode(text="Sailing around the cape in winter storms.", id_="3")])
    retriever = index.as_retriever(similarity_top_k=1)  # one knows what was there when it was made
    assert retriever.retrieve("a ship at sea")[0].node.node_id == "3"


def test_serialised_by_its_path(embedding, artifact):
    told = json.loads(embedding.to_json())
    assert told["class_name"] == "AsteriskEmbedding"
    assert told["artifact"] == told["model_name"] == str(artifact)
    for again in (
        pickle.loads(pickle.dumps(embedding)),
        AsteriskEmbedding.from_dict(embedding.to_dict()),
    ):
        assert again.get_query_embedding("a text") == embedding.get_query_embedding("a text")
        again.close()


def test_fewer_dimensions_and_refusals(artifact):
    small = AsteriskEmbedding(artifact, dim=64, threads=2, embed_batch_size=2)
    vectors = small.get_text_embedding_batch(TEXTS)
    assert {len(vector) for vector in vectors} == {64}
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(InputError):
        small.get_text_embedding("")
    small.close()
    with pytest.raises(UsageError, match="dim must be"):
        AsteriskEmbedding(artifact, dim=1_000).get_query_embedding("a text")


def test_nodes_and_queries_have_their_prompts(prompted):
    embedding = AsteriskEmbedding(prompted)
    with asterisk.load(prompted) as runtime:
        nodes = embedding.get_text_embedding_batch(TEXTS)
        np.testing.assert_array_equal(np.float32(nodes), runtime.encode_document(TEXTS))
        query = embedding.get_query_embedding(TEXTS[0])
        np.testing.assert_array_equal(np.float32(query), runtime.encode_query(TEXTS[0]))
        assert asyncio.run(embedding.aget_query_embedding(TEXTS[0])) == query != nodes[0]
    embedding.close()
