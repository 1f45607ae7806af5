"""ONNX Runtime: nothing outside the artifact is read, and a closed runtime says so."""

from __future__ import annotations

import json
import shutil
import threading

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.artifact import MANIFEST, sha256
from asterisk.common.errors import ArtifactError, EngineError
from asterisk.runtimes.onnx import check_graph


@pytest.fixture
def copy(artifact_of, tmp_path):
    target = tmp_path / "copy"
    shutil.copytree(artifact_of("onnx", "int8"), target)
    return target


def rehash(folder, drop=()):
    manifest = json.loads((folder / MANIFEST).read_text())
    names = [name for name in manifest["files"] if name not in drop]
    manifest["files"] = {name: sha256(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_weights_without_a_hash_are_refused(copy):
    rehash(copy, drop=("weights.bin",))
    with pytest.raises(ArtifactError, match=r"no hash for weights\.bin"):
        asterisk.load(copy)


def entry(key: bytes, value: bytes) -> bytes:
    return b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(value)]) + value


GOOD = entry(b"location", b"weights.bin")


def graph(*external: bytes) -> bytes:
    """A model whose one initializer has these external-data entries, byte by byte."""
    tensor = b"".join(b"\x6a" + bytes([len(e)]) + e for e in external)
    inner = b"\x2a" + bytes([len(tensor)]) + tensor
    return b"\x3a" + bytes([len(inner)]) + inner


@pytest.mark.parametrize(
    "external",
    [
        entry(b"location", b"../outside.bin"),
        entry(b"location", b"/etc/passwd"),
        GOOD + b"\x12\x0e../outside.bin",  # the last value counts
        b"\x3d\x00\x00\x6a\x17" + GOOD + b"\x12\x0e../outside.bin",  # behind an unknown field
        b"\x12\x0e../outside.bin" + GOOD[10:] + b"\x0a\x08location" + b"\x12\x0e../outside.bin",
    ],
)
def test_entries_that_lead_elsewhere(tmp_path, external):
    path = tmp_path / "model.onnx"
    path.write_bytes(graph(GOOD))
    check_graph(path, "weights.bin")
    path.write_bytes(graph(GOOD, external))
    with pytest.raises(ArtifactError, match="outside its artifact"):
        check_graph(path, "weights.bin")


def test_tensors_elsewhere_in_the_graph(copy):
    """A constant inside a node may not have external data at all."""
    path = copy / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    hidden = onnx.TensorProto(name="x", dims=[1], data_type=1, data_location=1)
    hidden.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["extra"], value=hidden))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="outside its artifact"):
        check_graph(path, "weights.bin")


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "model.onnx"
    path.write_bytes(data + b"location")
    with pytest.raises(ArtifactError):
        check_graph(path, "weights.bin")


def test_a_closed_runtime_says_so(artifact_of):
    runtime = asterisk.load(artifact_of("onnx", "int8"), threads=2)
    runtime.encode("text")
    runtime.close()
    runtime.close()
    for _ in range(3):
        with pytest.raises(EngineError, match="closed"):
            runtime.encode("text")


@pytest.mark.parametrize("name", ["onnx", "tflite", "gguf"])
def test_closing_waits_for_the_texts_under_way(artifact_of, name):
    recipe = "q8_0" if name == "gguf" else "int8"
    runtime = asterisk.load(artifact_of(name, recipe), threads=2)
    ended = []

    def work():
        try:
            while True:
                runtime.encode("a text that is embedded again and again")
        except EngineError as failure:
            ended.append(str(failure))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    runtime.encode("one more")
    runtime.close()
    for thread in threads:
        thread.join(timeout=60)
    assert ended == ["the runtime has been closed"] * 4
