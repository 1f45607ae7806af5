"""Recipes beside the default ones: what they store, what it costs, and that int8 stayed int8."""

from __future__ import annotations

import folders
import numpy as np
import onnx
import pytest
from conftest import SHIPPED, bare_artifact, bare_runtime, random_checkpoint, thresholds_of
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common import plugins
from asterisk.common.errors import UsageError
from asterisk.exporters import Written
from asterisk.exporters.export import choose, export, find_exporter, open_reference
from asterisk.exporters.onnx import WEIGHTS, OnnxExporter
from asterisk.exporters.rounding import NF4_BLOCK, nf4_levels, nf4_pairs, quantise_nf4
from asterisk.exporters.tflite import TfliteExporter
from asterisk.model.checkpoint import load
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.torch import reference

# bitsandbytes' table, which is what "nf4" means in every other program (csrc/kernels.cu).
NF4 = """-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635
-0.18477343022823334 -0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725
0.24611230194568634 0.33791524171829224 0.44070982933044434 0.5626170039176941
0.7229568362236023 1.0"""
WORDS = "embeddings.word_embeddings.weight"
SMALL = ModelConfig(hidden_size=32, num_layers=1, intermediate_size=64, vocab_size=500)
ORIGINAL = ModelConfig(
    vocab_size=50_259,
    hidden_size=64,
    intermediate_size=128,
    layer_norm_eps=1e-5,
    norm_first=True,
    embedding_norm=False,
    dense=(Dense(32),),
)
NEW = [("onnx", "int8-emb4"), ("tflite", "int8-emb4")]


def unpacked(packed, scales, width):
    values = np.stack([nf4_levels()[packed & 15], nf4_levels()[packed >> 4]], -1)
    wide = scales.astype("f4").reshape(len(packed), -1, 1)
    return (values.reshape(len(packed), -1, NF4_BLOCK) * wide).reshape(-1, width)


def test_the_levels_are_those_of_everybody():
    known = np.array(NF4.split(), "f8")
    assert np.abs(nf4_levels() - known).max() < 2e-7
    assert nf4_levels()[7] == 0
    byte = np.arange(256)
    assert np.array_equal(
        nf4_pairs(), np.stack([nf4_levels()[byte % 16], nf4_levels()[byte // 16]], 1)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.integers(1, 5), st.sampled_from([32, 96]))
def test_each_value_goes_to_its_nearest_level(seed, exponent, rows, width):
    table = np.random.default_rng(seed).standard_t(3, (rows, width)).astype("f4")
    table *= np.float32(10**exponent)
    table[0, :NF4_BLOCK] = 0
    packed, scales = quantise_nf4(table)
    assert packed.dtype == np.uint8
    assert scales.dtype == np.float16
    assert packed.nbytes + scales.nbytes == table.size * (4 + 16 / NF4_BLOCK) / 8
    back = unpacked(packed, scales, width)
    assert not back[0, :NF4_BLOCK].any()
    steps = np.repeat(scales.astype("f4"), NF4_BLOCK, axis=1)
    nearest = np.abs(nf4_levels()[:, None, None] * steps - table).min(0)
    assert np.allclose(np.abs(back - table), nearest, atol=1e-5 * np.abs(table).max())
    # Between two levels the gap is 0.304 at most; a scale is 0.8 to 1.05 of the largest value.
    largest = np.repeat(
        np.abs(table.reshape(-1, NF4_BLOCK)).max(1).reshape(rows, -1), NF4_BLOCK, axis=1
    )
    assert (np.abs(back - table) <= 0.201 * largest + 1e-6).all()


def test_scales_beyond_float16_are_cut_and_widths_without_blocks_refused():
    packed, scales = quantise_nf4(np.full((1, 32), 1e9, "f4"))
    assert np.isfinite(scales).all()
    packed, scales = quantise_nf4(np.full((1, 32), 1e-12, "f4"))
    assert not unpacked(packed, scales, 32).any()
    with pytest.raises(UsageError, match="blocks of 32; use recipe int8"):
        quantise_nf4(np.zeros((2, 48), "f4"))


@pytest.fixture(scope="module")
def shipped():
    """The shipped checkpoint and its reference."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("no shipped checkpoint here")
    checkpoint = load(SHIPPED)
    with open_reference(checkpoint) as truth:
        yield checkpoint, truth


@pytest.mark.parametrize(("name", "recipe"), NEW)
@pytest.mark.slow
def test_the_shipped_checkpoint_passes_its_gate(shipped, tmp_path, name, recipe):
    checkpoint, truth = shipped
    artifact = export(checkpoint, name, recipe, tmp_path / "it", reference=truth)
    figures, limits = artifact.manifest.fidelity, thresholds_of(name, recipe)
    assert artifact.manifest.thresholds == limits
    assert figures["cosine_mean"] >= limits.cosine_mean
    assert artifact.size < 10.6e6


@pytest.mark.parametrize(("name", "recipe"), NEW)
def test_the_original_projects_shape_too(tmp_path, name, recipe):
    """Without the gate: the neighbours of random vectors of 32 dimensions are too close."""
    checkpoint, writer = random_checkpoint(ORIGINAL, "original"), find_exporter(name)
    artifact = bare_artifact(writer, checkpoint, choose(writer, recipe), tmp_path)
    artifact.manifest.files["weights.bin"] = ""
    ids = [list(range(length, 500, 7)) for length in (1, 30, 400, 499)]
    engine = plugins.find("asterisk.runtimes", name)
    with bare_runtime(engine, artifact) as runtime, reference(checkpoint) as truth:
        for some in ids:
            ours, theirs = runtime.embed_ids(some), truth.embed_ids(some)
            cosine = ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))
            assert cosine > 0.99


def tensors_of(folder):
    """Every tensor of an ONNX model by name, as ONNX's own reader gives them."""
    model = onnx.load(folder / "model.onnx")
    return model, {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_the_onnx_table_is_four_bits_a_value(artifact_of, toy):
    folder = artifact_of("onnx", "int8-emb4")
    _, stored = tensors_of(folder)
    table = toy.tensors[WORDS]
    (packed,) = [t for t in stored.values() if t.dtype == np.uint8 and len(t) == len(table)]
    (scales,) = [t for t in stored.values() if t.dtype == np.float16]
    assert packed.shape == (50_259, 128)
    assert scales.shape == (50_259, 8, 1)
    back = unpacked(packed, scales, 256)
    assert np.sqrt(np.square(back - table).mean() / np.square(table).mean()) < 0.085
    # Nothing else has changed: what is left of the file is int8's matrices.
    int8 = (artifact_of("onnx", "int8") / WEIGHTS).stat().st_size
    saved = int8 - (folder / WEIGHTS).stat().st_size
    assert saved == pytest.approx(50_259 * (256 + 4 - 128 - 16), abs=3 * 4_096)


def test_the_tflite_table_is_four_bits_a_value(artifact_of, toy):
    from ai_edge_litert import schema_py_generated as schema

    path = artifact_of("tflite", "int8-emb4") / "model.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    found = {
        tensor.name.decode(): (tensor, model.buffers[tensor.buffer].data)
        for tensor in model.subgraphs[0].tensors
    }
    assert found["word"][0].type == schema.TensorType.UINT8
    assert found["word.scale"][0].type == schema.TensorType.FLOAT16
    packed = np.asarray(found["word"][1], np.uint8).reshape(50_259, 128)
    scales = np.asarray(found["word.scale"][1], np.uint8).view("<f2").reshape(50_259, 8)
    expected = quantise_nf4(toy.tensors[WORDS])
    assert np.array_equal(packed, expected[0])
    assert np.array_equal(scales, expected[1])
    assert path.stat().st_size < 9.6e6


class Given:
    """An exporter whose files have been written already."""

    def __init__(self, writer, folder):
        self.format, self.folder = writer.format, folder
        self.entry = "model.onnx" if writer.format == "onnx" else "model.tflite"

    def write(self, *_):
        return Written(self.entry, {})


@pytest.mark.parametrize("name", ["onnx", "tflite"])
@pytest.mark.slow
def test_int8_holds_for_a_model_of_six_layers(tmp_path, name, lines):
    """all-MiniLM-L6-v2, whose feed-forwards have channels that a scale for all would not bear."""
    checkpoint = load(folders.minilm())
    with reference(checkpoint) as truth:
        ids = [truth.tokenize(text) for text in lines[1:480:4]]
        writer = find_exporter(name)
        writer.write(
            checkpoint, writer.recipes[0], tmp_path, [truth.tokenize(t) for t in lines[::8]]
        )
        given = Given(writer, tmp_path)
        artifact = bare_artifact(given, checkpoint, writer.recipes[0], tmp_path)
        with bare_runtime(plugins.find("asterisk.runtimes", name), artifact) as runtime:
            pairs = [(runtime.embed_ids(some), truth.embed_ids(some)) for some in ids]
    cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    assert np.mean(cosines) > 0.999
    assert np.min(cosines) > 0.995


def test_defaults_stay_first():
    assert OnnxExporter.recipes[0].name == TfliteExporter.recipes[0].name == "int8"
