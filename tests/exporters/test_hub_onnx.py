"""The ONNX file for other people's loaders: padded batches, pooling, unit length, two outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import random_checkpoint

from asterisk.common.errors import UsageError
from asterisk.exporters import hub_onnx
from asterisk.exporters.hub_onnx import batch_model
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.torch import TorchEngine

SHAPE = ModelConfig(
    vocab_size=500, hidden_size=64, num_layers=3, num_heads=4, intermediate_size=128
)
TEXTS = [np.random.default_rng(n).integers(0, 500, n).tolist() for n in (1, 7, 3, 60, 20, 12)]
SHAPES = {
    "mean": SHAPE,
    "cls": replace(SHAPE, pooling="cls"),
    "max": replace(SHAPE, pooling="max", normalize=False),
    "root": replace(SHAPE, pooling="mean_sqrt_len_tokens", normalize=False),
    "dense": replace(SHAPE, dense=(Dense(96, "tanh"), Dense(32, "identity", bias=False))),
    "tanh": replace(SHAPE, activation="gelu_tanh"),
}


def run(data: bytes, texts, *, token_types: bool = True):
    """Return both outputs for texts padded to one batch."""
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    longest = max(map(len, texts))
    ids, mask = np.full((2, len(texts), longest), 9)
    mask[:] = 0
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    given = {"input_ids": ids, "attention_mask": mask}
    if token_types:
        given["token_type_ids"] = np.zeros_like(ids)
    return session.run(None, given)


def truth(checkpoint):
    """Return FP32 PyTorch's vectors, as long as the folder asks for."""
    engine = TorchEngine(checkpoint)
    vectors = np.stack([engine.run(text) for text in TEXTS])
    if checkpoint.config.normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("name", SHAPES)
def test_a_padded_batch_gives_each_text_its_own_vector(name):
    checkpoint = random_checkpoint(SHAPES[name])
    data = batch_model(checkpoint, quantised=False)
    states, vectors = run(data, TEXTS)
    assert states.shape == (len(TEXTS), 60, 64)
    np.testing.assert_allclose(vectors, truth(checkpoint), atol=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_in_int8_neighbours_change_no_vector(name):
    checkpoint = random_checkpoint(SHAPES[name])
    data = batch_model(checkpoint, quantised=True, samples=TEXTS)
    together = run(data, TEXTS)[1]
    alone = np.concatenate([run(data, [text])[1] for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-3)  # of a rounding that falls elsewhere
    right = truth(checkpoint)
    lengths = np.linalg.norm(together, axis=1) * np.linalg.norm(right, axis=1)
    assert ((together * right).sum(1) / lengths).min() > 0.995


def test_the_hidden_states_come_first_and_are_what_is_pooled():
    checkpoint = random_checkpoint(SHAPE)
    model = onnx.load_from_string(batch_model(checkpoint, quantised=False))
    onnx.checker.check_model(model, full_check=True)
    assert [out.name for out in model.graph.output] == ["last_hidden_state", "sentence_embedding"]
    assert {node.domain for node in model.graph.node} == {""}
    states, vectors = run(model.SerializeToString(), [TEXTS[3]])
    mean = states[0].mean(0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_model_without_token_types_is_not_asked_for_them():
    data = batch_model(random_checkpoint(SHAPE), quantised=False, token_types=False)
    names = [given.name for given in onnx.load_from_string(data).graph.input]
    assert names == ["input_ids", "attention_mask"]
    assert run(data, TEXTS, token_types=False)[1].shape == (len(TEXTS), 64)


def test_a_batch_of_nothing_but_padding_is_finite():
    data = batch_model(random_checkpoint(SHAPE), quantised=True)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    nothing = np.zeros((2, 5), np.int64)
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert all(np.isfinite(out).all() for out in session.run(None, dict.fromkeys(names, nothing)))


def test_what_one_file_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(hub_onnx, "LARGEST_FILE", 100_000)
    with pytest.raises(UsageError, match="does not fit into one ONNX file"):
        batch_model(random_checkpoint(SHAPE), quantised=False)
