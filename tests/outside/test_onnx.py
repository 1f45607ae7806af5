"""ONNX's own checker and its reference evaluator, which is plain numpy, on every recipe."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conftest import bare_runtime
from onnx.reference import ReferenceEvaluator

from asterisk.exporters.onnx import OnnxExporter
from asterisk.runtimes.onnx import OnnxEngine, check_graph

from .conftest import cosine

every = pytest.mark.parametrize("recipe", [recipe.name for recipe in OnnxExporter.recipes])


@every
@pytest.mark.slow
def test_the_checker_finds_nothing(written, recipe):
    """Types and shapes of every value included; all operators are ONNX's own."""
    artifact = written("onnx", recipe)
    onnx.checker.check_model(str(artifact.entry), full_check=True)
    model = onnx.load(artifact.entry, load_external_data=False)
    assert [(used.domain, used.version) for used in model.opset_import] == [("", 20)]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert not {node.domain for node in inferred.graph.node} - {""}
    check_graph(artifact.entry, "weights.bin")


@every
@pytest.mark.slow
def test_the_reference_evaluator_gives_our_vectors(written, ids, recipe):
    artifact = written("onnx", recipe)
    truth = ReferenceEvaluator(onnx.load(artifact.entry))
    # A rounding that falls the other way moves an activation by one step of 255.
    least = 0.999999 if recipe == "fp32" else 0.9999
    with bare_runtime(OnnxEngine, _hashed(artifact)) as runtime:
        for some in ids:
            (theirs,) = truth.run(None, {"input_ids": np.array([some], np.int64)})
            ours = runtime.embed_ids(some)
            assert cosine(ours, theirs) > least, len(some)
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=0.01)


def _hashed(artifact):
    from dataclasses import replace

    return replace(artifact, manifest=replace(artifact.manifest, files={"weights.bin": ""}))
