"""Which models' vectors may be compared, and how a model or an index says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import SHIPPED

import asterisk
from asterisk.artifact import open_artifact, read_spaces, share_space, spaces
from asterisk.common.errors import ArtifactError
from asterisk.model.checkpoint import load, save

A, B, C = (letter * 64 for letter in "abc")


def test_spaces_with_a_member_in_common_are_shared():
    assert share_space([A], [A])
    assert share_space([A, B], [C, B])
    assert not share_space([A], [B, C])
    assert not share_space([], [A])


def test_a_student_shares_its_teachers_space(toy, tmp_path):
    student = replace(toy, compatible_with=(B,))
    assert spaces(student) == (toy.fingerprint, B)
    save(student, tmp_path / "student")
    found = load(tmp_path / "student")
    assert spaces(found) == (toy.fingerprint, B)
    assert share_space(spaces(found), [B])


def test_a_model_is_an_artifact_a_checkpoint_or_a_fingerprint(artifact_of, toy, toy_folder):
    folder = artifact_of("onnx", "int8")
    manifest = open_artifact(folder).manifest
    assert read_spaces(str(folder)) == (spaces(manifest), 256)
    assert read_spaces(str(toy_folder)) == ((toy.fingerprint,), 256)
    assert read_spaces(A) == ((A,), None)
    for wrong in ("none", A[1:], A.upper()[:-1] + "G", str(SHIPPED / "config.json")):
        with pytest.raises(ArtifactError, match="no artifact, no checkpoint and no fingerprint"):
            read_spaces(wrong)


def test_the_similarity_that_a_folder_asks_for(toy, toy_folder, artifact_of, tmp_path):
    for folder in (toy_folder, artifact_of("onnx", "int8")):
        with asterisk.load(folder) as runtime:
            assert runtime.similarity is None
    save(toy, tmp_path / "dot")
    path = tmp_path / "dot" / "config_sentence_transformers.json"
    path.write_text('{"similarity_fn_name": "dot"}')
    with asterisk.load(tmp_path / "dot") as runtime:
        assert runtime.similarity == "dot"
