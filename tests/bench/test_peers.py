"""The systems of others, built and opened as the benchmark does."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from asterisk import plugins, texts
from asterisk.bench import peers
from asterisk.bench.prepare import Prepared, _edition, _peer
from asterisk.cli.bench import choose
from asterisk.errors import MissingPackage, UnknownName
from asterisk.evaluation.fidelity import compare, stability

CODE = """
import json, sys
from asterisk.bench import measure
row = json.loads(sys.argv[1])
encoder = measure.start({**row, "threads": 2, "first": "some text"}, lambda phase: None)
one, two = encoder.encode("some text"), encoder.encode(["some text", "another"])
print(json.dumps([sorted(sys.modules), one.shape, two.shape, float(abs(two[0] - one).max())]))
print(json.dumps([encoder.tokenize(text).shape[1] for text in ("a", "a " * 999)]
    if hasattr(encoder, "session") else None))
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    return lambda name: _peer(name, folder)


FOREIGN = {"torch", "onnx"}
LIGHT = FOREIGN | {"transformers"}
EXPECTED = {
    "original": (256, [128, 128], FOREIGN, 20),
    "minilm": (384, [3, 256], LIGHT, 20),
    "minilm-fp32": (384, [3, 256], LIGHT, 80),
    "minilm-dynamic": (384, [3, 256], LIGHT, 20),
    "minilm-st": (384, None, {"onnx"}, 80),
    "model2vec": (256, None, LIGHT | {"onnxruntime"}, 15),
    "fastembed": (384, None, LIGHT, 80),
}
OPTIONAL = {
    "minilm-st": "sentence_transformers",
    "model2vec": "model2vec",
    "fastembed": "fastembed",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_peer_gives_vectors_in_its_own_light_process(peer, python, name):
    size, lengths, foreign, megabytes = EXPECTED[name]
    pytest.importorskip(OPTIONAL.get(name, "onnxruntime"))
    row = peer(name)
    assert row.peer
    assert row.name == name
    assert megabytes * 1e6 < row.size < megabytes * 1e6 * 1.5 + 5e6
    done = python(CODE, json.dumps(asdict(row)))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    modules, one, two, apart = json.loads(first)
    assert (one, two) == ([size], [2, size])
    assert apart <= (0 if lengths else 1e-6)
    assert json.loads(second) == lengths
    assert not set(modules) & foreign


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean", "least"),
    [
        ("minilm", 0.99, 0.95),  # int8
        ("minilm-fp32", 0.999999, 0.999999),
        ("minilm-st", 0.999999, 0.999999),
        ("fastembed", 0.999999, 0.999999),
        ("model2vec", 0.99999, 0.99999),  # float16
    ],
)
def test_a_peer_agrees_with_its_own_fp32(peer, name, mean, least):
    pytest.importorskip(OPTIONAL.get(name, "onnxruntime"))
    row = peer(name)
    encoder = peers.find(name).open(Path(row.path), 1)
    some = [text.text for text in texts.load()[: row.compared]]
    vectors = encoder.encode(some)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    figures = compare(vectors, np.load(row.reference))
    assert figures.cosine_mean > mean
    assert figures.cosine_min > least
    alone = np.stack([encoder.encode(text) for text in some[:32]])
    assert stability(alone, encoder.encode(some[:32])) > 0.999999


@pytest.mark.slow
def test_the_static_model_is_what_model2vec_distils(peer):
    """Its own code for it, where a version of transformers is installed that it works with."""
    pytest.importorskip("skeletoken")
    distillation = pytest.importorskip("model2vec.distill")
    ours = peers.find("model2vec").open(Path(peer("model2vec").path), 1)
    theirs = distillation.distill(str(peers.find("minilm").find()), device="cpu")
    assert ours.model.tokens == theirs.tokens
    some = [text.text for text in texts.load()[:256]]
    a, b = ours.encode(some), theirs.encode(some).astype("f4")
    signs = np.sign((a * b).sum(0))  # a principal component has no direction
    assert compare(a * signs, b).cosine_min > 0.9999


def test_every_peer_that_comes_along_can_be_found_without_its_package():
    for name in peers.BUILTIN:
        peer = peers.find(name)
        assert peer.ROW.name == name
        assert peer.ROW.peer
        assert peer.ROW.opener == f"{peers.BUILTIN[name]}:open" or name == "minilm-fp32"
        assert callable(peer.prepare)
        assert callable(peer.open)
    with pytest.raises(UnknownName, match="no peer named 'fasttext'"):
        peers.find("fasttext")


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_peer_whose_package_is_missing_is_one_line_and_the_others_go_on(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, OPTIONAL[name], None)
    prepared = Prepared()
    prepared.attempt(name, lambda: _peer(name, tmp_path))
    prepared.attempt("other", lambda: peers.find("minilm").ROW)
    assert [row.name for row in prepared.rows] == ["minilm"]
    (line,) = prepared.failed.values()
    assert OPTIONAL[name] in line
    assert "pip install 'asterisk-edge[peers]'" in line
    assert not any(tmp_path.iterdir())


MODULE = """
import numpy as np
from asterisk.bench.plan import Row

ROW = Row("another", "Another", "none", "some_peer:open", "", (), ("numpy",), 0, peer=True)

def prepare(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(bytes(1234))
    np.save(folder / "reference.npy", np.ones((3, 4), "f4"))

def open(folder, threads):
    raise NotImplementedError
"""


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """A package's one module and its entry points, as pip leaves them."""
    root = tmp_path / "installed"
    (root / "some_peer-1.dist-info").mkdir(parents=True)
    (root / "some_peer.py").write_text(MODULE)
    (root / "some_peer-1.dist-info/entry_points.txt").write_text(
        "[asterisk.peers]\nmine = some_peer\nminilm = some_peer\nbroken = some_peer_that_is_not\n"
    )
    monkeypatch.syspath_prepend(root)
    plugins._found.cache_clear()
    yield root
    plugins._found.cache_clear()
    sys.modules.pop("some_peer", None)


def test_a_peer_of_somebody_else_s(registered, tmp_path):
    assert peers.names() == (*peers.BUILTIN, "broken", "mine")
    row = _peer("mine", tmp_path / "work")
    assert (row.name, row.peer, row.size, row.compared) == ("mine", True, 1234, 3)
    assert choose("mine", without_peers=False) == ((), ("mine",))
    assert choose("all", without_peers=False)[1] == peers.USUAL
    # What comes along cannot be replaced.
    assert peers.find("minilm").__name__ == "asterisk.bench.peers.minilm"
    with pytest.raises(MissingPackage, match="some_peer_that_is_not"):
        peers.find("broken")


def test_it_is_prepared_again_when_its_code_changes(registered, tmp_path):
    peer = peers.find("mine")
    before = _edition("mine", peer)
    assert _edition("mine", peer) == before
    (registered / "some_peer.py").write_text(MODULE + "# changed")
    assert _edition("mine", peer) != before
