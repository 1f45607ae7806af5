"""The TFLite file: what it stores, in which form, and that other readers can use it."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_checkpoint

from asterisk.common.errors import MissingExtra
from asterisk.exporters.flatbuffer import ALIGNMENT, ANY, Graph
from asterisk.exporters.rounding import quantise_rows
from asterisk.exporters.tflite import (
    ENTRY,
    INPUT,
    OUTPUT,
    SIGNATURE,
    EncoderGraph,
    TfliteExporter,
    sentence_model,
)
from asterisk.model.config import ModelConfig
from asterisk.runtimes.torch import TorchEngine

INT8, *_, FP32 = TfliteExporter.recipes
SMALL = ModelConfig(hidden_size=32, num_layers=1, intermediate_size=64, vocab_size=500)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model under both recipes, by name."""
    folder = tmp_path_factory.mktemp("tflite")
    written = {}
    for recipe in TfliteExporter.recipes:
        TfliteExporter().write(random_checkpoint(SMALL), recipe, folder, [])
        written[recipe.name] = folder / f"{recipe.name}.tflite"
        (folder / ENTRY).rename(written[recipe.name])
    return written


def _model(path):
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    return schema.ModelT.InitFromPackedBuf(data), data, schema


def test_matrices_and_the_token_table_are_int8(files):
    model, _, schema = _model(files["int8"])
    stored = {
        tensor.name.decode(): tensor.type
        for tensor in model.subgraphs[0].tensors
        if model.buffers[tensor.buffer].data is not None
    }
    for name, kind in stored.items():
        if name == "word" or (name.endswith(".weight") and "norm" not in name):
            assert kind == schema.TensorType.INT8, name
    assert stored["word.scale"] == stored["position"] == schema.TensorType.FLOAT32


def test_operators_have_the_versions_that_their_types_need(files):
    def versions(name):
        model, _, schema = _model(files[name])
        names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
        return {(names[code.builtinCode], code.version) for code in model.operatorCodes}

    assert {("FULLY_CONNECTED", 12), ("GATHER", 2), ("GATHER", 1)} <= versions("int8")
    fp32 = dict(sorted(versions("fp32")))
    assert fp32.pop("FULLY_CONNECTED") == 5
    assert set(fp32.values()) == {1}


def test_constants_lie_aligned_in_the_file(files):
    """Kernels read them where the file is mapped."""
    for path in files.values():
        _, data, schema = _model(path)
        root = schema.Model.GetRootAs(data)
        start = np.frombuffer(data, np.uint8).ctypes.data
        found = 0
        for index in range(root.BuffersLength()):
            buffer = root.Buffers(index)
            if not buffer.DataIsNone():
                offset = buffer.DataAsNumpy().ctypes.data - start
                assert offset % ALIGNMENT == 0
                found += 1
        assert found > 10


def test_length_is_the_only_dimension_that_changes(files):
    model, _, _ = _model(files["int8"])
    by_name = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    assert list(by_name[INPUT].shapeSignature) == [1, ANY]
    assert list(by_name[OUTPUT].shape) == [1, 32]
    assert by_name[OUTPUT].shapeSignature is None
    (signature,) = model.signatureDefs
    assert signature.signatureKey.decode() == SIGNATURE


@pytest.mark.parametrize("kind", ["AUTO", "BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
@pytest.mark.parametrize(("name", "least"), [("int8", 0.999), ("fp32", 0.99999)])
def test_plain_interpreters_give_the_same_vector(files, name, least, kind):
    """By the signature's names, with XNNPACK, without it, and with the reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from asterisk.runtimes.torch import reference

    checkpoint = random_checkpoint(SMALL)
    interpreter = Interpreter(
        str(files[name]), experimental_op_resolver_type=getattr(OpResolverType, kind)
    )
    runner = interpreter.get_signature_runner(SIGNATURE)
    for length in (1, 7, 130):
        ids = np.random.default_rng(length).integers(0, 500, (1, length), np.int32)
        ours = runner(**{INPUT: ids})[OUTPUT][0]
        theirs = reference(checkpoint).embed_ids(ids[0].tolist())
        cosine = ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))
        assert cosine > least


def test_the_same_bytes_again(files, tmp_path):
    for recipe in TfliteExporter.recipes:
        written = TfliteExporter().write(random_checkpoint(SMALL), recipe, tmp_path, [])
        assert written.entry == ENTRY
        assert set(written.versions) == {"ai-edge-litert", "flatbuffers"}
        assert (tmp_path / ENTRY).read_bytes() == files[recipe.name].read_bytes()


def test_the_file_is_hardly_larger_than_its_weights(toy, tmp_path):
    TfliteExporter().write(toy, INT8, tmp_path, [])
    matrices = sum(v.size for v in toy.tensors.values() if v.ndim == 2)
    assert (tmp_path / ENTRY).stat().st_size < 1.06 * matrices


def test_rounds_each_row_to_its_own_scale():
    values = np.random.default_rng(0).normal(size=(50, 33)).astype("f4")
    values *= np.logspace(-45, 30, 50, dtype="f8")[:, None]
    values[7] = 0
    rounded, scales = quantise_rows(values.astype("f4"))
    assert rounded.dtype == np.int8
    assert rounded.min() >= -127
    assert not rounded[7].any()
    back = rounded * scales[:, None]
    # Within half a step, except among numbers too small for float32 to have steps.
    usual = np.abs(values).max(1) > 1e-30
    assert (np.abs(back - values)[usual] <= 0.501 * scales[usual, None]).all()


def test_options_reach_the_file():
    graph = Graph()
    given = graph.tensor("given", (1, ANY))
    result = graph.tensor("result", (1, ANY))
    graph.operator("SOFTMAX", [given], [result], beta=0.5)
    data = graph.to_bytes("main", given, result, "test")
    assert data[4:8] == b"TFL3"
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data)
    (node,) = model.subgraphs[0].operators
    assert node.builtinOptions.beta == 0.5
    assert list(node.inputs) == [given]
    assert list(node.outputs) == [result]


def test_importing_the_exporter_imports_no_engine(python):
    code = (
        "import sys, asterisk.exporters.tflite\n"
        "sys.exit(bool({'ai_edge_litert', 'flatbuffers', 'torch'} & set(sys.modules)))"
    )
    assert python(code).returncode == 0


def test_says_what_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtra, match=r"ai-edge-litert .*asterisk-edge\[export\]"):
        TfliteExporter().write(random_checkpoint(SMALL), FP32, tmp_path, [])
    assert not list(tmp_path.iterdir())


SCORED = replace(SMALL, num_layers=2, num_heads=4)
TEXTS = [np.random.default_rng(n).integers(0, 500, n).tolist() for n in (1, 5, 30, 90)]


def _attending(factor, samples, folder):
    """A model whose second block's queries are ``factor`` times as long, and its operators."""
    checkpoint = random_checkpoint(SCORED)
    tensors = dict(checkpoint.tensors)
    for part in ("weight", "bias"):
        name = f"encoder.layer.1.attention.self.query.{part}"
        tensors[name] = tensors[name] * np.float32(factor)
    checkpoint = replace(checkpoint, tensors=tensors)
    TfliteExporter().write(checkpoint, FP32, folder, samples)
    model, _, schema = _model(folder / ENTRY)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    graph = model.subgraphs[0]
    return checkpoint, [
        names[model.operatorCodes[o.opcodeIndex].builtinCode] for o in graph.operators
    ]


def _vectors(checkpoint, folder):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(folder / ENTRY), num_threads=1).get_signature_runner()
    engine = TorchEngine(checkpoint)
    ours = [runner(input_ids=np.array([ids], np.int32))[OUTPUT][0] for ids in TEXTS]
    return np.stack(ours), np.stack([engine.run(ids) for ids in TEXTS])


def test_small_scores_are_exponentiated_all_at_once(tmp_path):
    checkpoint, operators = _attending(1, TEXTS, tmp_path)
    assert operators.count("EXP") == 2
    assert "SOFTMAX" not in operators
    ours, right = _vectors(checkpoint, tmp_path)
    np.testing.assert_allclose(ours, right, atol=1e-5)


def test_a_block_with_large_scores_keeps_the_softmax(tmp_path):
    checkpoint, operators = _attending(400, TEXTS, tmp_path)
    assert operators.count("EXP") == operators.count("SOFTMAX") == 1
    ours, right = _vectors(checkpoint, tmp_path)
    np.testing.assert_allclose(ours, right, atol=1e-4)


def test_scores_larger_than_any_sample_had_stay_finite(tmp_path):
    """The samples said nothing of what a text can do: exp(800) is no float32."""
    checkpoint, _ = _attending(1, TEXTS, tmp_path)
    graph = EncoderGraph(SCORED, int8=False)
    loud = _attending(4_000, [], tmp_path)[0]
    data = sentence_model(graph, "loud", loud.tensors, scores=[1.0, 1.0])
    (tmp_path / ENTRY).write_bytes(data)
    ours, _ = _vectors(checkpoint, tmp_path)
    assert np.isfinite(ours).all()
