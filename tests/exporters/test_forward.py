"""Both graph formats compute the encoder: every pooling, activation and Dense, at every length."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import bare_artifact, random_checkpoint

from asterisk.common import plugins
from asterisk.exporters import onnx, rounding
from asterisk.exporters.export import choose, find_exporter
from asterisk.exporters.forward import Calibration
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.torch import TorchEngine

SMALL = ModelConfig(vocab_size=500, hidden_size=48, num_layers=2, num_heads=3, intermediate_size=96)
LENGTHS = (1, 2, 31, 64, 512)
FORMATS = ("onnx", "tflite")
SHAPES = {
    "as it is": SMALL,
    "cls": replace(SMALL, pooling="cls"),
    "max": replace(SMALL, pooling="max"),
    "root of the length": replace(SMALL, pooling="mean_sqrt_len_tokens", normalize=False),
    "relu": replace(SMALL, activation="relu"),
    "tanh gelu": replace(SMALL, activation="gelu_tanh"),
    "pre-norm": replace(SMALL, norm_first=True, embedding_norm=False, layer_norm_eps=1e-5),
    "pre-norm, cls, relu": replace(SMALL, norm_first=True, pooling="cls", activation="relu"),
    "one wide head": replace(SMALL, num_heads=1),
    "dense": replace(SMALL, dense=(Dense(80, "tanh"), Dense(20, bias=False))),
    "cls, dense": replace(SMALL, pooling="cls", dense=(Dense(7),)),
    "no layers": replace(SMALL, num_layers=0),
    "no layers, cls": replace(SMALL, num_layers=0, pooling="cls"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Both engines of a format, shape and recipe, and the folder, each written once."""

    @cache
    def write(format, shape, recipe):
        folder = tmp_path_factory.mktemp(f"{format}-{recipe}")
        return *engine(format, SHAPES[shape], folder, recipe), folder

    return write


def engine(format, config, folder, recipe="fp32"):
    """Write a random checkpoint of this shape and open it; its FP32 engine comes along."""
    checkpoint, writer = random_checkpoint(config), find_exporter(format)
    artifact = bare_artifact(writer, checkpoint, choose(writer, recipe), folder)
    (opened,) = plugins.find("asterisk.runtimes", format).open(artifact, 1)
    return opened, TorchEngine(checkpoint)


def ids_of(length):
    return np.random.default_rng(length).integers(0, SMALL.vocab_size, length).tolist()


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", FORMATS)
def test_float32_is_the_encoder(format, shape, written):
    ours, truth, _ = written(format, shape, "fp32")
    for length in LENGTHS:
        found, expected = ours.run(ids_of(length)), truth.run(ids_of(length))
        assert found.shape == (SHAPES[shape].embedding_size,)
        assert cosine(found, expected) > 0.99999, length
        # Not normalised: a cosine alone would hide a sum where a mean should be.
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", FORMATS)
def test_int8_is_close(format, shape, written):
    ours, truth, _ = written(format, shape, "int8")
    for length in LENGTHS:
        assert cosine(ours.run(ids_of(length)), truth.run(ids_of(length))) > 0.995, length


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recipe", ["int8", "fp32"])
def test_xnnpack_takes_all_of_tflite_after_the_tables(shape, recipe, written):
    """One partition that ends in the result, at a length that is not the file's own."""
    from ai_edge_litert.interpreter import Interpreter

    *_, folder = written("tflite", shape, recipe)
    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=1)
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], [1, 9])
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    (delegate,) = [one for one in operators if one["op_name"] == "DELEGATE"]
    assert list(delegate["outputs"]) == [result["index"]]


@pytest.mark.parametrize("shape", ["as it is", "pre-norm", "relu", "cls"])
@pytest.mark.parametrize("format", FORMATS)
def test_calibration_changes_nothing_but_rounding(format, shape, tmp_path, monkeypatch):
    """With factors of any size and any exact channels, int8 is still close to FP32."""
    config, random = SHAPES[shape], np.random.default_rng(1)

    def calibrate(checkpoint, samples, *, per_token):
        def any_of(size, exact=0):
            factors = np.exp2(random.integers(-4, 5, size) / 4).astype("f4")
            channels = np.sort(random.choice(size, exact, replace=False))
            return Calibration(factors, channels)

        hidden, inner = config.hidden_size, config.intermediate_size
        some = 0 if per_token else 5
        outer = any_of(inner, 6)
        if config.activation != "relu":
            outer = replace(outer, factors=None)
        return [
            {
                "attention": any_of(hidden, some),
                "output": any_of(hidden),
                "inner": any_of(hidden, some),
                "outer": outer,
            }
            for _ in range(config.num_layers)
        ]

    def with_scores(*arguments, **options):
        return calibrate(*arguments, **options), []

    monkeypatch.setattr(onnx, "calibrate", calibrate)
    monkeypatch.setattr(rounding, "calibrate_with_scores", with_scores)
    ours, truth = engine(format, config, tmp_path, "int8")
    for length in (1, 31, 512):
        assert cosine(ours.run(ids_of(length)), truth.run(ids_of(length))) > 0.995


@pytest.mark.parametrize("format", FORMATS)
def test_a_large_vocabulary_and_every_position(format, tmp_path):
    """Ids beyond 16 bits find their rows, in each form of the table."""
    config = replace(SMALL, hidden_size=32, num_heads=2, num_layers=1, vocab_size=200_003)
    for recipe, least in (("fp32", 0.99999), ("int8", 0.995), ("int8-emb4", 0.98)):
        folder = tmp_path / recipe
        folder.mkdir()
        ours, truth = engine(format, config, folder, recipe)
        for ids in ([200_002], [65_536, 0, 70_000], list(range(199_491, 200_003))):
            assert cosine(ours.run(ids), truth.run(ids)) > least
