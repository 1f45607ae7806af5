"""Manifests from outside: nothing they say is believed before it is checked."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asterisk.artifact import MANIFEST, open_artifact
from asterisk.common.errors import ArtifactError


@pytest.fixture
def copy(artifact_of, tmp_path):
    target = tmp_path / "artifact"
    shutil.copytree(artifact_of("onnx", "int8"), target)
    return target


def change(folder, **values):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_opens(copy):
    artifact = open_artifact(copy)
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
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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


def test_weights_may_not_be_read_from_elsewhere(copy, tmp_path):
    """A graph that names another file is refused even when its hash fits."""
    import onnx

    import asterisk
    from asterisk.artifact import sha256

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
    import os
    import socket

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
    """How a file came to its name cannot be told; what is in it, its hash tells."""
    import os

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
