"""Somebody else's BERT as a graph: against Hugging Face's own code, and in padded batches."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.exporters.bert_graph import Shape, lay_out

WORDS, HIDDEN, LAYERS, HEADS = 60, 32, 2, 4
TEXTS = [[5, 9, 2], [7, 1, 33, 40, 41, 3, 11], [8]]


@pytest.fixture(scope="module")
def bert():
    """A small seeded BertModel."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    return transformers.BertModel(config).eval()


@pytest.fixture(scope="module")
def states(bert):
    """The last hidden states of each text alone, by Hugging Face."""
    import torch

    with torch.inference_mode():
        return [bert(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in TEXTS]


@pytest.fixture
def session(bert, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    weights = {name: tensor.numpy() for name, tensor in bert.state_dict().items()}

    def make(**options):
        model, data = lay_out(weights, Shape(LAYERS, HEADS), location="w.bin", **options)
        (tmp_path / "m.onnx").write_bytes(model)
        (tmp_path / "w.bin").write_bytes(data)
        return ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])

    return make


def test_float32_is_hugging_faces(session, states):
    graph = session(pooled=True, quantised=False)
    for ids, expected in zip(TEXTS, states, strict=True):
        (vector,) = graph.run(None, {"input_ids": np.array([ids])})
        assert np.allclose(vector[0], expected.mean(0), atol=1e-5)


def test_padding_that_is_masked_changes_nothing(session, states):
    graph = session(pooled=False, quantised=False, masked=True)
    longest = max(map(len, TEXTS))
    ids = np.array([text + [50] * (longest - len(text)) for text in TEXTS])
    mask = np.array([[1] * len(text) + [0] * (longest - len(text)) for text in TEXTS])
    (found,) = graph.run(None, {"input_ids": ids, "attention_mask": mask})
    for text, row, expected in zip(TEXTS, found, states, strict=True):
        assert np.allclose(row[: len(text)], expected, atol=1e-5)
    (unmasked,) = graph.run(None, {"input_ids": ids, "attention_mask": np.ones_like(mask)})
    assert not np.allclose(unmasked[0, :3], states[0], atol=1e-3)


def test_a_mean_over_padding_is_refused(session):
    with pytest.raises(ValueError, match="padding"):
        session(pooled=True, masked=True)
