"""What a device has: numpy, the engines and artifacts, and nothing of what made them.

With ASTERISK_ARTIFACTS, a folder that `asterisk-export --format all` filled, these are the tests of
an install without PyTorch (`tox -e device-py313`). Otherwise the artifacts are made here.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import asterisk
from asterisk.apps.classify.head import Head, Layer
from asterisk.artifact import GOLDEN_TEXTS, GOLDEN_VECTORS
from asterisk.common import texts
from asterisk.common.errors import MissingExtra

FORMATS = ("onnx", "tflite", "gguf")
GIVEN = os.environ.get("ASTERISK_ARTIFACTS")
MAKERS = ("torch", "transformers", "tokenizers", "onnx", "gguf", "safetensors", "sklearn")


@pytest.fixture(scope="module", params=FORMATS)
def artifact(request) -> Path:
    """The artifact of each format under its default recipe."""
    if GIVEN is None:
        default = request.getfixturevalue("default_recipe")[request.param]
        return request.getfixturevalue("artifact_of")(request.param, default)
    found = [
        path.parent
        for path in sorted(Path(GIVEN).glob("*/artifact.json"))
        if json.loads(path.read_text("utf-8"))["format"] == request.param
    ]
    assert found, f"{GIVEN} holds no {request.param} artifact: tox -e artifacts"
    return found[0]


@pytest.fixture(scope="module")
def default_recipe():
    from asterisk.exporters.export import find_exporter

    return {name: find_exporter(name).recipes[0].name for name in FORMATS}


@pytest.mark.skipif(GIVEN is None, reason="this install can make artifacts, too")
def test_nothing_that_makes_artifacts_is_installed():
    assert [name for name in MAKERS if find_spec(name)] == []


def test_it_verifies_itself(command, artifact):
    done = command("verify", artifact)
    assert done.returncode == 0, done.stderr.decode()


def test_the_golden_vectors_come_out(artifact):
    golden = json.loads((artifact / GOLDEN_TEXTS).read_text("utf-8"))
    wanted = np.load(artifact / GOLDEN_VECTORS)
    with asterisk.load(artifact) as runtime:
        cosines = (runtime.encode(golden) * wanted).sum(1)
    assert cosines.min() > 0.98


def test_two_lanes_give_what_one_gives(artifact):
    some = [text.text for text in texts.load()[:60]]
    with asterisk.load(artifact) as one, asterisk.load(artifact, threads=2) as two:
        assert np.array_equal(one.encode(some), two.encode(some))


def test_lines_become_vectors(command, artifact, tmp_path):
    (tmp_path / "lines.txt").write_text("a cat on a mat\nÜber die Brücke\n")
    out = tmp_path / "vectors.npy"
    done = command("embed", artifact, tmp_path / "lines.txt", "--out", out)
    assert done.returncode == 0, done.stderr.decode()
    vectors = np.load(out)
    assert vectors.shape == (2, 256)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_head_needs_numpy_alone(artifact, tmp_path):
    random = np.random.default_rng(0)
    with asterisk.load(artifact) as runtime:
        layer = Layer(random.normal(size=(2, 256)).astype("f4"), np.zeros(2, "f4"))
        head = Head(("yes", "no"), (layer,), runtime.fingerprint)
        head.save(tmp_path / "head.safetensors")
        vectors = runtime.encode(["Is it?", "It is not."])
    read = Head.open(tmp_path / "head.safetensors")
    assert np.array_equal(read.logits(vectors), head.logits(vectors))


@pytest.mark.skipif(GIVEN is None, reason="this install can make artifacts, too")
def test_what_is_missing_is_named(artifact):
    from asterisk.common import plugins

    with pytest.raises(MissingExtra, match="pip install"):
        plugins.require("onnx", "export")
