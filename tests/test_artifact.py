"""Manifests from outside: nothing they say is believed before it is checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import replace

import onnx
import pytest
from conftest import SHIPPED, random_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.artifact import MANIFEST, open_artifact, read_spaces, sha256, share_space, spaces
from asterisk.common.errors import ArtifactError
from asterisk.model.checkpoint import load, save
from asterisk.model.config import ModelConfig

A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def copy(artifact_of, tmp_path):
    """An artifact whose files are a few bytes each: nothing here runs it."""
    target, source = tmp_path / "artifact", artifact_of("onnx", "int8")
    target.mkdir()
    manifest = json.loads((source / MANIFEST).read_text())
    for name in manifest["files"]:
        (target / name).write_text(f"not really {name}")
        manifest["files"][name] = sha256(target / name)
    (target / MANIFEST).write_text(json.dumps(manifest, indent=2))
    return target


@pytest.fixture(scope="module")
def small():
    return random_checkpoint(ModelConfig(hidden_size=32, num_layers=1, intermediate_size=32))


def change(folder, **values):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_opens(artifact_of):
    artifact = open_artifact(artifact_of("onnx", "int8"))
    assert artifact.manifest.format == "onnx"
    assert artifact.entry.is_file()
    assert artifact.size > 10_000_000
    assert artifact.manifest.fingerprint in artifact.manifest.compatible_with


def test_a_newer_schema_says_what_to_do(copy):
    change(copy, schema=3)
    with pytest.raises(ArtifactError, match="schema 3, this version reads 2"):
        open_artifact(copy)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "\x00", "artifact.json"]
)
def test_a_path_that_leaves_the_folder(copy, name):
    files = json.loads((copy / MANIFEST).read_text())["files"]
    change(copy, files=files | {name: "0" * 64})
    with pytest.raises(ArtifactError, match="leaves the folder"):
        open_artifact(copy)
    change(copy, files=files, entry=name)
    with pytest.raises(ArtifactError):
        open_artifact(copy)


def test_a_link_out_of_the_folder_is_refused(copy, tmp_path):
    path = copy / "tokenizer.bin"
    outside = tmp_path / "outside.bin"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(ArtifactError, match="leaves the folder"):
        open_artifact(copy)


def test_a_link_within_the_folder_is_followed_to_the_file_of_that_hash(copy):
    (copy / "..data").mkdir()
    (copy / "tokenizer.bin").rename(copy / "..data" / "tokenizer.bin")
    (copy / "tokenizer.bin").symlink_to("..data/tokenizer.bin")
    assert open_artifact(copy).tokenizer.is_symlink()
    (copy / "..data" / "tokenizer.bin").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="sha256"):
        open_artifact(copy)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", '"x"', "{}", "[" * 100_000, '{"schema": "1"}', "\x00"]
)
def test_what_is_no_manifest(copy, text):
    (copy / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError) as caught:
        open_artifact(copy)
    assert "\n" not in str(caught.value)


def test_a_huge_manifest_is_not_read(copy):
    (copy / MANIFEST).write_bytes(b" " * (2 << 20))
    with pytest.raises(ArtifactError, match="at most 1,048,576 bytes"):
        open_artifact(copy)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_field_may_hold_anything(copy, data):
    """A manifest with one field replaced is either refused in one line or means the same."""
    original = (copy / MANIFEST).read_text()
    values = json.loads(original)
    field = data.draw(st.sampled_from(sorted(values)))
    target = values
    if isinstance(values[field], dict) and data.draw(st.booleans()):
        target, field = values[field], data.draw(st.sampled_from(sorted(values[field])))
    target[field] = data.draw(json_values)
    try:
        (copy / MANIFEST).write_text(json.dumps(values))
        open_artifact(copy)
    except ArtifactError as failure:
        assert "\n" not in str(failure)  # noqa: PT017
    finally:
        (copy / MANIFEST).write_text(original)


def test_weights_may_not_be_read_from_elsewhere(artifact_of, tmp_path):
    """A graph that names another file is refused even when its hash fits."""
    copy = tmp_path / "copy"
    shutil.copytree(artifact_of("onnx", "int8"), copy)
    path = copy / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../outside.bin"
    path.write_bytes(model.SerializeToString())
    shutil.copy(copy / "weights.bin", tmp_path / "outside.bin")
    files = json.loads((copy / MANIFEST).read_text())["files"]
    change(copy, files=files | {"model.onnx": sha256(path)})
    with pytest.raises(ArtifactError, match="outside its artifact"):
        asterisk.load(copy)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "link in a circle", "device", "socket"])
def test_only_plain_files_are_opened(copy, kind):
    """Reading a pipe would wait for ever; a device has no end."""
    for name in ("weights.bin", MANIFEST):
        path = copy / name
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/dev/zero")
        elif kind == "link in a circle":
            path.symlink_to(path)
        elif kind == "device":
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
            except OSError:
                pytest.skip("only root makes devices")
        else:
            socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
        with pytest.raises(ArtifactError):
            open_artifact(copy)


def test_hard_links_are_plain_files(copy, tmp_path):
    """Nobody can say how a file came to its name; its hash says what is in it."""
    os.link(copy / "weights.bin", tmp_path / "elsewhere")
    open_artifact(copy)
    (tmp_path / "elsewhere").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="sha256"):
        open_artifact(copy)


@pytest.mark.parametrize(
    "limits",
    [
        {"cosine_min": 0.5},
        {"cosine_min": -1},
        {"cosine_mean": 1.5},
        {"overlap_at_10": -0.1},
        {"cosine_min": True},
        {"cosine_min": 10**400},
    ],
)
def test_thresholds_that_let_anything_pass(copy, limits):
    before = json.loads((copy / MANIFEST).read_text())["thresholds"]
    change(copy, thresholds=before | limits)
    with pytest.raises(ArtifactError, match=r"anything would pass|malformed"):
        open_artifact(copy)


def test_numbers_that_are_none_and_names_that_stand_twice(copy):
    text = (copy / MANIFEST).read_text()
    for wrong in (
        text.replace('"cosine_min": 0', '"cosine_min": NaN, "other": 0', 1),
        text.replace('"cosine_min": 0', '"cosine_min": Infinity, "other": 0', 1),
        text.replace('"schema": 2', '"schema": 2, "schema": 2'),
        text.replace('"files": {', '"files": {"x": "y"}, "files": {'),
    ):
        assert wrong != text
        (copy / MANIFEST).write_text(wrong)
        with pytest.raises(ArtifactError, match="is not JSON"):
            open_artifact(copy)


def test_spaces_with_a_member_in_common_are_shared():
    assert share_space([A], [A])
    assert share_space([A, B], [C, B])
    assert not share_space([A], [B, C])
    assert not share_space([], [A])


def test_a_student_shares_its_teachers_space(small, tmp_path):
    student = replace(small, compatible_with=(B,))
    assert spaces(student) == (small.fingerprint, B)
    save(student, tmp_path / "student")
    found = load(tmp_path / "student")
    assert spaces(found) == (small.fingerprint, B)
    assert share_space(spaces(found), [B])


def test_a_model_is_an_artifact_a_checkpoint_or_a_fingerprint(artifact_of, small, tmp_path):
    folder = artifact_of("onnx", "int8")
    manifest = open_artifact(folder).manifest
    save(small, tmp_path / "small")
    assert read_spaces(str(folder)) == (spaces(manifest), 256)
    assert read_spaces(str(tmp_path / "small")) == ((small.fingerprint,), 32)
    assert read_spaces(A) == ((A,), None)
    for wrong in ("none", A[1:], A.upper()[:-1] + "G", str(SHIPPED / "config.json")):
        with pytest.raises(ArtifactError, match="no artifact, no checkpoint and no fingerprint"):
            read_spaces(wrong)


def test_the_similarity_that_a_folder_asks_for(small, artifact_of, tmp_path):
    folder = tmp_path / "checkpoint"
    save(small, folder)
    for path in (folder, artifact_of("onnx", "int8")):
        with asterisk.load(path) as runtime:
            assert runtime.similarity is None
    path = folder / "config_sentence_transformers.json"
    path.write_text('{"similarity_fn_name": "dot"}')
    with asterisk.load(folder) as runtime:
        assert runtime.similarity == "dot"
