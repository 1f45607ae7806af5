"""The systems of others, built and opened as the benchmark does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from asterisk import texts
from asterisk.bench.peers import minilm
from asterisk.bench.prepare import _peer
from asterisk.evaluation.fidelity import compare

pytestmark = pytest.mark.slow
CODE = """
import json, sys
from asterisk.bench import measure
row = json.loads(sys.argv[1])
encoder = measure.start({**row, "threads": 2, "first": "some text"}, lambda phase: None)
one, two = encoder.encode("some text"), encoder.encode(["some text", "another"])
print(json.dumps([sorted(sys.modules), one.shape, two.shape, float(abs(two[0] - one).max())]))
print(json.dumps([encoder.tokenize(text).shape[1] for text in ("a", "a " * 999)]))
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    return lambda name: _peer(name, folder)


FOREIGN = {"torch", "onnx"}
EXPECTED = {
    "original": (256, [128, 128], FOREIGN),
    "minilm": (384, [3, 256], FOREIGN | {"transformers"}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_peer_gives_vectors_in_its_own_light_process(peer, python, name):
    size, lengths, foreign = EXPECTED[name]
    row = peer(name)
    assert row.peer
    assert row.size > 20_000_000
    done = python(CODE, json.dumps(asdict(row)))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    modules, one, two, apart = json.loads(first)
    assert (one, two, apart) == ([size], [2, size], 0)
    assert json.loads(second) == lengths
    assert not set(modules) & foreign


def test_minilm_is_compared_with_its_own_fp32(peer):
    row = peer("minilm")
    some = [text.text for text in texts.load()[: row.compared]]
    figures = compare(minilm.open(Path(row.path), 1).encode(some), np.load(row.reference))
    assert figures.cosine_mean > 0.99
    assert figures.cosine_min > 0.95
