"""TensorFlow's own interpreter on every recipe, in the environment `outside-tensorflow` of tox.

TensorFlow may live in an interpreter of its own: ``ASTERISK_TENSORFLOW_PYTHON`` names it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import bare_runtime

from asterisk.exporters.tflite import INPUT, OUTPUT, SIGNATURE, TfliteExporter
from asterisk.runtimes.tflite import TfliteEngine
from asterisk.runtimes.torch import reference

from .conftest import cosine

VARIABLE = "ASTERISK_TENSORFLOW_PYTHON"
CHILD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, tensorflow as tf
told = json.load(sys.stdin)
kinds = tf.lite.experimental.OpResolverType
vectors = []
for kind in (kinds.AUTO, kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
    interpreter = tf.lite.Interpreter(
        told["path"], num_threads=1, experimental_op_resolver_type=kind
    )
    runner = interpreter.get_signature_runner(told["signature"])
    for ids in told["ids"]:
        given = {told["input"]: np.array([ids], np.int32)}
        vectors.append(runner(**given)[told["output"]][0])
np.save(told["out"], np.array(vectors))
print("tensorflow", tf.__version__)
"""


def _python() -> str:
    named = os.environ.get(VARIABLE)
    if named:
        return named
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip(f"no tensorflow here, and {VARIABLE} names no interpreter that has it")
    return sys.executable


@pytest.mark.parametrize("recipe", [recipe.name for recipe in TfliteExporter.recipes])
@pytest.mark.slow
def test_tensorflow_gives_our_vectors(shipped, written, ids, tmp_path, recipe):
    python = _python()
    artifact = written("tflite", recipe)
    told = {
        **{"path": str(artifact.entry), "out": str(tmp_path / "vectors.npy"), "ids": ids},
        **{"signature": SIGNATURE, "input": INPUT, "output": OUTPUT},
    }
    done = subprocess.run(
        [python, "-c", CHILD],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.startswith("tensorflow 2.")
    delegated, plain = np.split(np.load(tmp_path / "vectors.npy"), 2)
    assert not np.array_equal(delegated, plain)  # two sets of kernels did run
    fp32 = [reference(shipped).embed_ids(some) for some in ids]
    least = {"fp32": 0.999999, "int8": 0.999, "int8-emb4": 0.97}[recipe]
    with bare_runtime(TfliteEngine, artifact) as runtime:
        ours = [runtime.embed_ids(some) for some in ids]
    for theirs in (delegated, plain):
        for one, two, truth in zip(ours, theirs, fp32, strict=True):
            assert cosine(one, two) > 0.9999
            assert cosine(two, truth) > least
