"""Each thing that an engine must never see, alone: what the campaigns find only by chance."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import struct

import numpy as np
import pytest

import asterisk
from asterisk.artifact import open_artifact, sha256
from asterisk.common.errors import ArtifactError, EngineError, FidelityError
from asterisk.runtimes.gguf import check_header
from asterisk.runtimes.load import verify
from asterisk.runtimes.onnx import check_graph
from asterisk.runtimes.tflite import OPERATORS, check_file
from hardening import mutants, mutants_gguf, mutants_onnx, mutants_tflite


@pytest.fixture
def onnx_model(small_artifact, tmp_path):
    """Change the graph as a message and have it checked."""
    source = small_artifact("onnx")
    shutil.copy(source / "weights.bin", tmp_path)

    def check(change):
        model = mutants_onnx._parsed({"model.onnx": (source / "model.onnx").read_bytes()})
        change(model)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        check_graph(tmp_path / "model.onnx", "weights.bin")

    check(lambda model: None)
    return check


def external(model, index=0):
    tensor = [tensor for tensor in model.graph.initializer if tensor.external_data][index]
    return tensor, {entry.key: entry for entry in tensor.external_data}


def set_entry(key, value):
    def change(model):
        external(model)[1][key].value = value

    return change


def twice(model):
    external(model)[0].external_data.add(key="offset", value="0")


def checksum(model):
    external(model)[0].external_data.add(key="checksum", value="0")


def on_another(model):
    external(model, 1)[1]["offset"].value = external(model)[1]["offset"].value


def huge(model):
    external(model)[0].dims[0] = 2**40


def wider(model):
    external(model)[0].dims[0] *= 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        *(
            (set_entry("location", to), "outside its artifact")
            for to in ("../w", "/etc/passwd", "")
        ),
        (set_entry("location", "./weights.bin"), "outside its artifact"),
        (set_entry("offset", "-1"), "no number"),
        (set_entry("offset", "1e3"), "no number"),
        (set_entry("offset", "9" * 30), "no number"),
        (set_entry("offset", "9" * 18), "overlap|end at byte"),
        (set_entry("length", "1"), "that is given 1"),
        (twice, "outside its artifact"),
        (checksum, "outside its artifact"),
        (on_another, "overlap"),
        (huge, "dimension of"),
        (wider, "that is given"),
    ],
)
def test_onnx_data_lies_within_its_one_file(onnx_model, change, complaint):
    with pytest.raises(ArtifactError, match=complaint):
        onnx_model(change)


@pytest.mark.parametrize("seed", range(40))
def test_onnx_data_hidden_elsewhere_and_graphs_within(small_artifact, tmp_path, seed):
    """In attributes, subgraphs, sparse tensors, functions and training; endless loops."""
    source = small_artifact("onnx")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    change = (mutants_onnx._elsewhere, mutants_onnx._loop)[seed % 2]
    _, changed = change(files, random.Random(seed))
    shutil.copy(source / "weights.bin", tmp_path)
    (tmp_path / "model.onnx").write_bytes(changed["model.onnx"])
    with pytest.raises(ArtifactError, match=r"outside|does not belong"):
        check_graph(tmp_path / "model.onnx", "weights.bin")


def test_onnx_weights_may_be_shorter_than_the_graph_says(small_artifact, tmp_path):
    shutil.copytree(small_artifact("onnx"), tmp_path, dirs_exist_ok=True)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-4])
    with pytest.raises(ArtifactError, match="of a weight file of"):
        check_graph(tmp_path / "model.onnx", "weights.bin")


@pytest.fixture
def tflite_model(small_artifact, tmp_path):
    """Change the graph as an object and have it checked."""
    data = (small_artifact("tflite") / "model.tflite").read_bytes()

    def check(change):
        model = mutants_tflite._parsed({"model.tflite": data})
        change(model)
        path = tmp_path / "model.tflite"
        path.write_bytes(mutants_tflite._bytes(model)["model.tflite"])
        check_file(path)

    check(lambda model: None)
    return check


def schema():
    return mutants_tflite.schema


def constants(model):
    return [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]


def elsewhere(model):
    mutants_tflite._external(model, random.Random(0))


def external_only(model):
    constants(model)[0].externalBuffer = 1


def behind(model):
    model.buffers[constants(model)[0].buffer].offset = 4096
    model.buffers[constants(model)[0].buffer].size = 16


def custom(model):
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].customCode = "TFLite_Detection_PostProcess"


def custom_without_name(model):
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32


def endless(model):
    mutants_tflite._endless(model)


def metadata(model):
    note = schema().MetadataT()
    note.name, note.buffer = "model_control_dependencies", 1
    model.metadata = [note]


def two_graphs(model):
    model.subgraphs.append(model.subgraphs[0])


def writes_a_constant(model):
    graph = model.subgraphs[0]
    graph.operators[0].outputs = [graph.tensors.index(constants(model)[-1])]


def computed_over_data(model):
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[3].outputs[0]]
    tensor.buffer = constants(model)[0].buffer


def before_it_is_there(model):
    model.subgraphs[0].operators.reverse()


def other_type(model):
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[5].outputs[0]].type = 9


def not_a_number(model):
    tensor = next(t for t in constants(model) if t.quantization is not None)
    tensor.quantization.scale = tensor.quantization.scale * np.float32("nan")


def few_scales(model):
    tensor = next(t for t in constants(model) if t.quantization is not None)
    tensor.quantization.scale = tensor.quantization.scale[:5]


def short_data(model):
    buffer = model.buffers[constants(model)[0].buffer]
    buffer.data = buffer.data[:-1]


def large_options(model):
    model.subgraphs[0].operators[0].largeCustomOptionsOffset = 4096
    model.subgraphs[0].operators[0].largeCustomOptionsSize = 4096


def no_such_tensor(model):
    model.subgraphs[0].operators[0].inputs = [99_999]


def no_such_output(model):
    model.subgraphs[0].outputs = [2**31 - 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (elsewhere, r"a model with a field that does not belong \(8\)"),
        (external_only, r"a tensor with a field that does not belong \(10\)"),
        (behind, "data outside the tables"),
        (custom, "does not belong"),
        (custom_without_name, r"an operator that does not belong \(32\)"),
        (endless, r"an operator that does not belong \(119\)"),
        (metadata, r"a model with a field that does not belong \(6\)"),
        (two_graphs, "2 graphs"),
        (writes_a_constant, "is a constant too"),
        (computed_over_data, "computed twice|bytes"),
        (before_it_is_there, "not computed yet"),
        (other_type, "other types"),
        (not_a_number, "no positive number"),
        (few_scales, "5 scales for a tensor"),
        (short_data, "bytes"),
        (large_options, "does not belong"),
        (no_such_tensor, "an index of 99999"),
        (no_such_output, "an index of 2147483647"),
    ],
)
def test_tflite_graphs_that_litert_would_follow(tflite_model, change, complaint):
    with pytest.raises(ArtifactError, match=complaint):
        tflite_model(change)


def test_tflite_operators_are_the_schemas():
    names = mutants_tflite.schema.BuiltinOperator
    for number, (name, _) in OPERATORS.items():
        assert getattr(names, name) == number


def test_tflite_offsets_that_leave_the_file(small_artifact, tmp_path):
    """Any one byte of the tables: refused in one line or sound, never another exception."""
    data = (small_artifact("tflite") / "model.tflite").read_bytes()
    spans = mutants_tflite._outside_buffers(data)
    chance = random.Random(0)
    path = tmp_path / "model.tflite"
    refused = 0
    for _ in range(300):
        start, end = chance.choices(spans, [b - a for a, b in spans])[0]
        path.write_bytes(mutants.flipped(data, chance, start, end))
        try:
            check_file(path)
        except ArtifactError as failure:
            assert "\n" not in str(failure)  # noqa: PT017
            refused += 1
    assert refused > 100


@pytest.fixture
def gguf_file(small_artifact, tmp_path):
    """Change the header's bytes and have it checked."""
    artifact = open_artifact(small_artifact("gguf"))
    data = artifact.entry.read_bytes()
    header = mutants_gguf.Header(data)

    def check(changes):
        changed = bytearray(data)
        for place, value in changes(header):
            changed[place.at : place.at + place.size] = value.to_bytes(place.size, "little")
        path = tmp_path / "model.gguf"
        path.write_bytes(changed)
        check_header(path, artifact.config)

    check(lambda header: [])
    return check


def places(kind, value, index=0):
    return lambda header: [([p for p in header.places if p.kind == kind][index], value)]


def overlapping(header):
    first, second = [p for p in header.places if p.kind == "offset"][:2]
    (value,) = struct.unpack_from("<Q", header.data, first.at)
    return [(second, value)]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (places("tensors", 2**63), "a count of"),
        (places("keys", 2**32), "a count of"),
        (places("array length", 2**64 - 1), "where 1048576 is the most"),
        (places("array length", 2**30), "where 1048576 is the most"),
        (places("length", 2**63, 0), "where 4096 is the most"),
        # Within an array, where no string is read.
        (places("length", 2**62, 25), "of 4611686018427387904 bytes|where 4096 is the most"),
        # Two dimensions to whoever looks at three bits only.
        (places("rank", 0x8000_0002), "has 2147483650 dimensions"),
        (places("size", 2**40), "a count of"),
        (places("type", 30), "of a kind"),
        (places("offset", 1), "misaligned"),
        (places("offset", 2**31), "ends before"),
        (overlapping, "overlap"),
    ],
)
def test_gguf_counts_are_bounded_before_they_are_used(gguf_file, changes, complaint):
    with pytest.raises(ArtifactError, match=complaint):
        gguf_file(changes)


@pytest.mark.parametrize("name", ["onnx", "tflite", "gguf"])
def test_vectors_that_are_not_finite_are_no_vectors(small_artifact, tmp_path, name):
    """A row of the table that no golden text uses, replaced by what is no number."""
    copy = tmp_path / "copy"
    shutil.copytree(small_artifact(name), copy)
    token = 31_373  # "hello"
    with asterisk.load(copy) as runtime:
        assert runtime.tokenize("hello") == [token]
    manifest = json.loads((copy / "artifact.json").read_text())
    victim = _poison(name, copy, token)
    manifest["files"][victim] = sha256(copy / victim)
    (copy / "artifact.json").write_text(json.dumps(manifest))
    with asterisk.load(copy) as runtime:
        for normalize in (True, False):
            with pytest.raises(EngineError, match="not finite"):
                runtime.encode(["fine", "hello"], normalize=normalize)
        assert np.isfinite(runtime.encode("fine")).all()


def _poison(name, folder, token):
    if name == "onnx":
        onnx = importlib.import_module("onnx")
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        scales = next(t for t in model.graph.initializer if list(t.dims) == [50_259, 1])
        offset = int(next(e.value for e in scales.external_data if e.key == "offset"))
        return _overwrite(folder / "weights.bin", offset + 4 * token, b"\xff" * 4)
    if name == "tflite":
        data = (folder / "model.tflite").read_bytes()
        model = mutants_tflite.schema.Model.GetRootAs(data, 0)
        for index in range(model.BuffersLength()):
            table = model.Buffers(index)._tab
            if (field := table.Offset(4)) and table.VectorLen(field) == 4 * 50_259:
                start = table.Vector(field)
        return _overwrite(folder / "model.tflite", start + 4 * token, b"\xff" * 4)
    data = (folder / "model.gguf").read_bytes()
    header = mutants_gguf.Header(data)
    start = header.end + -header.end % 32
    (place,) = (at for at, _ in header.tensors if b"token_embd.weight" in data[at - 60 : at])
    (offset,) = struct.unpack_from("<Q", data, place)
    return _overwrite(folder / "model.gguf", start + offset + 34 * token, b"\xff" * 34)


def _overwrite(path, at, data):
    changed = bytearray(path.read_bytes())
    changed[at : at + len(data)] = data
    path.write_bytes(changed)
    return path.name


def test_a_changed_engine_file_does_not_verify(small_artifact, tmp_path):
    """Two matrices exchanged, hashes mended, golden texts untouched: verification says so."""
    for name in ("onnx", "tflite", "gguf"):
        copy = tmp_path / name
        shutil.copytree(small_artifact(name), copy)
        files = {path.name: path.read_bytes() for path in copy.iterdir()}
        changed = _noise_in_layers(name, files)
        for file, data in mutants._rehashed(files | changed, changed).items():
            (copy / file).write_bytes(data)
        open_artifact(copy)
        with pytest.raises((FidelityError, EngineError)):  # the latter: not finite
            verify(copy)


def _noise_in_layers(name, files):
    """Write positive noise over the position vectors and layers, which every text uses."""
    noise = np.random.default_rng(0).integers(1, 60, 1 << 20, np.uint8).tobytes()
    if name == "tflite":
        model = mutants_tflite._parsed(files)
        for buffer in model.buffers:
            if buffer.data is not None and 1_000 < len(buffer.data) < 100_000:
                buffer.data = noise[: len(buffer.data)]
        return mutants_tflite._bytes(model)
    victim = "weights.bin" if name == "onnx" else "model.gguf"
    data = bytearray(files[victim])
    data[-60_000:-8_192] = noise[: 60_000 - 8_192]
    return {victim: bytes(data)}


def test_golden_vectors_that_are_longer_than_one(small_artifact, tmp_path):
    """Else a cosine of a wrong vector with a long enough one would be above any threshold."""
    copy = tmp_path / "copy"
    shutil.copytree(small_artifact("onnx"), copy)
    for factor in (100.0, np.inf, np.nan, 0.0):
        np.save(
            copy / "golden.npy", np.load(small_artifact("onnx") / "golden.npy") * np.float32(factor)
        )
        manifest = json.loads((copy / "artifact.json").read_text())
        manifest["files"]["golden.npy"] = sha256(copy / "golden.npy")
        (copy / "artifact.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match="unit length"):
            verify(copy)
