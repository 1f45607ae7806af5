"""Calibration finds the channels that int8 loses on, and leaves alone what needs nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import SHIPPED, random_checkpoint

from asterisk.exporters import rounding
from asterisk.exporters.export import choose, find_exporter
from asterisk.exporters.rounding import EXACT, calibrate
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.model.config import ModelConfig
from asterisk.model.encoder import Embeddings
from asterisk.runtimes.torch import TorchEngine

SHAPE = ModelConfig(
    vocab_size=500, hidden_size=64, num_layers=6, num_heads=4, intermediate_size=128
)
SAMPLES = [
    np.random.default_rng(seed).integers(0, 500, 8 + 5 * seed).tolist() for seed in range(12)
]
OTHERS = [np.random.default_rng(seed).integers(0, 500, 40).tolist() for seed in range(50, 70)]
LOUD = 5, 40  # channels


def with_loud_channels(config: ModelConfig) -> Checkpoint:
    """A checkpoint with what deep trained encoders have: a few channels far above the others."""
    checkpoint = random_checkpoint(config)
    tensors = {name: value.copy() for name, value in checkpoint.tensors.items()}
    for index in range(config.num_layers):
        block = f"encoder.layer.{index}"
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            tensors[f"{block}.{norm}.weight"][list(LOUD)] *= 12
        for reader in ("attention.self.query", "attention.self.key", "attention.self.value"):
            tensors[f"{block}.{reader}.weight"][:, LOUD] /= 12
        tensors[f"{block}.intermediate.dense.weight"][:, LOUD] /= 12
        # The same for every text: a bias lifts two channels before the activation.
        tensors[f"{block}.intermediate.dense.bias"][list(LOUD)] += 40
        tensors[f"{block}.output.dense.weight"][:, LOUD] /= 40
    return Checkpoint("loud", config, tensors)


def run(format, checkpoint, samples, folder):
    """Return what the engine gives for `OTHERS` under int8 calibrated on ``samples``."""
    from asterisk.runtimes.onnx import session_options

    writer = find_exporter(format)
    written = writer.write(checkpoint, choose(writer, "int8"), folder, samples)
    path = str(folder / written.entry)
    if format == "onnx":
        import onnxruntime as ort

        session = ort.InferenceSession(path, session_options(ort))
        return [session.run(None, {"input_ids": np.array([ids])})[0][0] for ids in OTHERS]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(path, num_threads=1).get_signature_runner()
    return [runner(input_ids=np.array([ids], np.int32))["sentence_embedding"][0] for ids in OTHERS]


def loss(found, checkpoint):
    """Return 1 - the mean cosine to FP32."""
    truth = TorchEngine(checkpoint)
    pairs = [(a, truth.run(ids)) for a, ids in zip(found, OTHERS, strict=True)]
    return 1 - np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs])


@pytest.mark.parametrize(
    ("format", "config"),
    [
        ("onnx", SHAPE),
        ("onnx", replace(SHAPE, norm_first=True)),
        ("onnx", replace(SHAPE, activation="relu")),
        ("tflite", SHAPE),
        ("tflite", replace(SHAPE, norm_first=True)),
        ("tflite", replace(SHAPE, activation="relu")),
    ],
)
def test_int8_is_nearer_to_fp32_with_samples(format, config, tmp_path):
    checkpoint = with_loud_channels(config)
    without, calibrated = (
        loss(run(format, checkpoint, samples, tmp_path), checkpoint) for samples in ([], SAMPLES)
    )
    assert calibrated < (0.35 if format == "onnx" else 0.75) * without


def test_the_loud_channels_are_the_exact_ones():
    for block in calibrate(with_loud_channels(SHAPE), SAMPLES, per_token=False):
        exact = block["outer"].exact
        assert len(exact) == EXACT
        assert set(LOUD) <= set(exact.tolist())


def test_smoothing_takes_from_loud_channels_and_rounds_coarsely():
    (first, *_) = calibrate(with_loud_channels(SHAPE), SAMPLES, per_token=True)
    factors = first["inner"].factors
    assert set(np.argsort(factors)[-2:]) == set(LOUD)
    octaves = 4 * np.log2(factors)
    assert np.allclose(octaves, np.rint(octaves), atol=1e-5)
    assert np.median(factors) == 1


def test_smoothing_that_costs_an_operator_is_for_deep_models():
    """Where a norm of its own precedes a product, the same smoothing is free and taken."""
    tame = random_checkpoint(replace(SHAPE, num_layers=2))
    for per_token in (True, False):
        for block in calibrate(tame, SAMPLES, per_token=per_token):
            assert block["attention"].factors is None
            assert block["inner"].factors is None
            assert not len(block["outer"].exact)
    loud = with_loud_channels(replace(SHAPE, num_layers=2, norm_first=True))
    assert all(
        block["inner"].factors is not None for block in calibrate(loud, SAMPLES, per_token=True)
    )


@pytest.mark.slow
def test_the_paper_s_checkpoint_needs_next_to_no_calibration(lines):
    """Two layers: its files are those without calibration, but for a few exact channels in one."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("no shipped checkpoint here")
    checkpoint = load(SHIPPED)
    tokenizer = checkpoint.tokenizer.open()
    samples = [tokenizer.encode(line, 512) for line in lines[::8][:120]]
    for per_token in (True, False):
        exact = []
        for index, block in enumerate(calibrate(checkpoint, samples, per_token=per_token)):
            assert all(each.factors is None for each in block.values())
            exact += [(index, part) for part, each in block.items() if len(each.exact)]
        assert exact == ([] if per_token else [(0, "outer")])


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_same_samples_give_the_same_bytes(format, tmp_path):
    checkpoint, writer = with_loud_channels(SHAPE), find_exporter(format)
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        writer.write(checkpoint, choose(writer, "int8"), tmp_path / name, SAMPLES)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]


def test_no_samples_no_calibration():
    assert calibrate(random_checkpoint(SHAPE), [], per_token=True) == []


def test_only_so_many_tokens_are_run(monkeypatch):
    """A user's long texts do not make an export last for hours."""
    seen = []
    embed = Embeddings.forward
    monkeypatch.setattr(rounding, "MOST_TOKENS", 300)
    monkeypatch.setattr(Embeddings, "forward", lambda it, ids: seen.append(ids) or embed(it, ids))
    calibrate(random_checkpoint(SHAPE), [[1, 2, 3] * 20] * 100, per_token=True)
    assert 240 <= sum(ids.numel() for ids in seen) <= 300
