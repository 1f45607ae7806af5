"""A package of somebody else's, built and installed as pip does, seen through the real commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT, install_example

import asterisk
from asterisk.artifact import MANIFEST, sha256
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError

EXAMPLE = ROOT / "examples" / "asterisk-npz"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The example, installed into a folder of its own from a copy of its source."""
    return install_example(EXAMPLE, tmp_path_factory.mktemp("third-party"))


@pytest.fixture(scope="session")
def call(installed):
    """Run a command where the package is installed."""

    def run(name, *arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", f"asterisk.cli.{name}", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={**os.environ, "PYTHONPATH": str(installed)},
            **options,
        )

    return run


@pytest.fixture(scope="session")
def made(call, toy_folder, tmp_path_factory):
    """The toy checkpoint, exported by the command."""
    out = tmp_path_factory.mktemp("made")
    folders = {}
    for name, recipe in (("npz", "int8"), ("npz", "fp16"), ("onnx-equalised", "int8")):
        done = call("export", toy_folder, "--format", name, "--recipe", recipe, "--out", out)
        assert done.returncode == 0, done.stderr
        folders[f"{name}-{recipe}"] = out / f"toy-{name}-{recipe}"
    return folders


@pytest.fixture
def within(installed, monkeypatch):
    """The package seen by this process too."""
    monkeypatch.syspath_prepend(installed)
    plugins._found.cache_clear()
    yield
    plugins._found.cache_clear()


def test_its_formats_and_recipes_are_listed(call):
    listed = call("export", "--list").stdout.splitlines()
    names = {tuple(line.split()[:2]) for line in listed}
    assert {("npz", "int8"), ("npz", "fp16"), ("onnx-equalised", "int8"), ("onnx", "int8")} <= names


@pytest.mark.parametrize(
    ("which", "least"), [("npz-int8", 0.999), ("npz-fp16", 0.99999), ("onnx-equalised-int8", 0.999)]
)
def test_its_artifacts_pass_the_gate_and_verify(made, call, which, least):
    manifest = json.loads((made[which] / MANIFEST).read_text())
    assert manifest["fidelity"]["cosine_mean"] > least
    assert f"{manifest['format']}-{manifest['recipe']}" == which
    verified = call("verify", made[which])
    assert verified.returncode == 0, verified.stderr
    embedded = call("embed", made[which], input="a text\n")
    assert embedded.returncode == 0, embedded.stderr
    vector = np.array(json.loads(embedded.stdout)["embedding"], "f4")
    assert vector.shape == (256,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_its_runtime_needs_numpy_alone(made, installed, python, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    done = python(
        "import sys, asterisk\n"
        "asterisk.load(sys.argv[1], threads=2).encode(['a text', 'another'])\n"
        "print(*sorted({module.split('.')[0] for module in sys.modules}))",
        made["npz-int8"],
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "asterisk_npz" in loaded
    assert not loaded & {"torch", "onnxruntime", "ai_edge_litert", "xllamacpp", "scipy"}


def test_its_recipe_stores_other_weights_than_the_built_in(made, artifact_of):
    ours = (made["onnx-equalised-int8"] / "weights.bin").read_bytes()
    theirs = (artifact_of("onnx", "int8") / "weights.bin").read_bytes()
    assert len(ours) == len(theirs)
    assert ours != theirs
    # The table, which lies first, is the same.
    assert ours[: 50_259 * 256] == theirs[: 50_259 * 256]


def test_its_recipe_is_the_same_encoder_in_float32(within, toy):
    from asterisk_npz.equalised import equalised

    from asterisk.runtimes.torch import reference

    changed = equalised(toy)
    value, output = "attention.self.value.weight", "attention.output.dense.weight"
    rows = np.abs(changed.tensors[f"encoder.layer.0.{value}"]).max(1)
    columns = np.abs(changed.tensors[f"encoder.layer.0.{output}"]).max(0)
    assert np.allclose(rows, columns, rtol=1e-5)
    ids = list(range(50))
    with reference(toy) as one, reference(changed) as other:
        assert np.allclose(one.embed_ids(ids), other.embed_ids(ids), atol=1e-5)


def test_every_length_in_numpy(within, made, toy):
    from asterisk.runtimes.torch import reference

    with asterisk.load(made["npz-fp16"]) as runtime, reference(toy) as truth:
        for length in (1, 2, 3, 64, 511, 512):
            ids = list(range(100, 100 + length))
            assert np.allclose(runtime.embed_ids(ids), truth.embed_ids(ids), atol=2e-3)


def test_erf_is_erf(within):
    from math import erf as exact

    from asterisk_npz.forward import erf

    x = np.linspace(-6, 6, 2_001, dtype="f4")
    assert np.abs(erf(x) - [exact(value) for value in x.astype("f8")]).max() < 5e-7


def rewritten(source, target, change):
    """Copy an artifact with its arrays changed, and hashed again."""
    shutil.copytree(source, target)
    with np.load(source / "model.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(target / "model.npz", **arrays)
    rehash(target)
    return target


def rehash(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["model.npz"] = sha256(folder / "model.npz")
    (folder / MANIFEST).write_text(json.dumps(manifest))


BIAS = "encoder.layer.0.output.dense.bias"
MATRIX = "encoder.layer.0.output.dense.weight"
CHANGES = {
    "missing": lambda arrays: arrays.pop(BIAS),
    "unknown": lambda arrays: arrays.update(extra=np.zeros(3, "f4")),
    "wider": lambda arrays: arrays.update({BIAS: arrays[BIAS].astype("f8")}),
    "shorter": lambda arrays: arrays.update({BIAS: arrays[BIAS][:-1]}),
    "turned": lambda arrays: arrays.update({MATRIX: np.asfortranarray(arrays[MATRIX])}),
    "objects": lambda arrays: arrays.update({BIAS: arrays[BIAS].astype(object)}),
    "nan": lambda arrays: arrays.update({BIAS: arrays[BIAS] * np.float32("nan")}),
    "no scale": lambda arrays: arrays.pop(f"{MATRIX}:scale"),
    "text": lambda arrays: arrays.update({BIAS: arrays[BIAS].astype("U8")}),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_archive_that_does_not_fit_is_refused(within, made, tmp_path, kind):
    wrong = rewritten(made["npz-int8"], tmp_path / "it", CHANGES[kind])
    with pytest.raises(ArtifactError, match=r"model\.npz"):
        asterisk.load(wrong)


def test_damage_under_a_right_hash_is_refused(within, made, tmp_path):
    data = (made["npz-int8"] / "model.npz").read_bytes()
    compressed = tmp_path / "compressed.npz"
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{BIAS}.npy", bytes(50_000_000))
    twice = tmp_path / "twice.npz"
    with np.load(made["npz-int8"] / "model.npz") as arrays:
        np.savez(twice, **arrays)
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr(f"{BIAS}.npy", archive.read(f"{BIAS}.npy"))
    damages = [data[: len(data) // 2], data[:100], b"", data[:5_000] + b"!" + data[5_001:]]
    damages += [compressed.read_bytes(), twice.read_bytes()]
    folder = tmp_path / "it"
    shutil.copytree(made["npz-int8"], folder)
    for damage in damages:
        (folder / "model.npz").write_bytes(damage)
        rehash(folder)
        with pytest.raises(ArtifactError, match=r"model\.npz"):
            asterisk.load(folder)
