"""A worker imports its own engine and none other; the parent none at all."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from asterisk.bench.prepare import _artifact, _reference
from asterisk.exporters.export import find_exporter as exporter
from asterisk.exporters.export import formats

ENGINES = {
    "torch": "torch",
    "onnx": "onnxruntime",
    "tflite": "ai_edge_litert",
    "gguf": "xllamacpp",
}
OTHERS = {"transformers", "tokenizers", "onnx", "jax", "asterisk.cli", "asterisk.exporters"}
CODE = """
import json, sys
from asterisk.bench import measure, worker
spec = json.loads(sys.argv[1])
measure.start(spec, lambda phase: None)
print(json.dumps(sorted(sys.modules)))
"""


def loaded(python, row):
    spec = {**asdict(row), "threads": 1, "first": "some text"}
    done = python(CODE, json.dumps(spec))
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", formats())
def test_a_worker_imports_only_its_engine(python, toy, artifact_of, name):
    folder = artifact_of(name, exporter(name).recipes[0].name)
    modules = loaded(python, _artifact(toy, name, folder.parent))
    foreign = {module for engine, module in ENGINES.items() if engine != name}
    assert not modules & (foreign | OTHERS)


def test_the_reference_imports_pytorch_only(python, toy_folder):
    modules = loaded(python, _reference(toy_folder, ""))
    assert "torch" in modules
    assert not modules & ({"onnxruntime", "ai_edge_litert", "xllamacpp"} | OTHERS)


def test_the_parent_imports_no_engine_and_no_numpy(python):
    done = python("import sys, json, asterisk.cli.bench; print(json.dumps(sorted(sys.modules)))")
    modules = set(json.loads(done.stdout))
    assert not modules & (set(ENGINES.values()) | OTHERS - {"asterisk.cli"} | {"numpy"})
