"""The systems of others, built and opened as the benchmark does."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import folders
import numpy as np
import pytest

from asterisk.bench import peers, process
from asterisk.bench.peers.onnx import (
    PeerEncoder,
    onnx_session,
    sentence_module,
    tokenizer,
    trace,
    write_tokenizer,
)
from asterisk.bench.prepare import _edition, _peer, build_peer, prepare
from asterisk.cli.bench import PEER_PYTHON, choose, main
from asterisk.common import plugins, texts
from asterisk.common.errors import AsteriskError, MissingPackage, UnknownName
from asterisk.evaluation.fidelity import compare
from asterisk.model.checkpoint import load
from asterisk.runtimes.torch import open_checkpoint

# Another environment, in which the packages of all of them are.
PYTHON = os.environ.get("ASTERISK_PEER_PYTHON") or (
    str(PEER_PYTHON.absolute()) if PEER_PYTHON.is_file() else ""
)
CODE = """
import json, sys
import numpy as np
from asterisk.bench import worker
row, texts, out = json.loads(sys.argv[1])
encoder = worker.start({**row, "threads": 2, "first": "some text"}, lambda phase: None)
modules = sorted(sys.modules)
one, many = encoder.encode(texts[0]), encoder.encode(texts)
parts = all(hasattr(encoder, part) for part in worker.PARTS)
if parts:
    alone = np.stack([encoder.embed_ids(encoder.tokenize(text)) for text in texts[:8]])
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    assert abs(alone - np.stack([encoder.encode(text) for text in texts[:8]])).max() < 1e-5
np.save(out, many)
told = [modules, one.shape, parts, worker.padding(encoder, {"mixed": texts})]
print(json.dumps([*told, float(many[0] @ one)]))
"""
FOREIGN = {"torch", "onnx"}
LIGHT = FOREIGN | {"transformers"}
# What a process may not import, and the cosine that the vectors have with FP32.
SAME = {
    "dynamic": (LIGHT, 0.95),
    "dynamic-per-channel": (LIGHT, 0.97),
    "sentence-transformers": ({"onnx"}, 0.9999),
    "sentence-transformers-onnx": (set(), 0.95),
    "fastembed": (LIGHT, 0.9999),
    "openvino": (LIGHT, 0.97),
    "openvino-weights": (LIGHT, 0.99),
}
OTHER = {"original": (FOREIGN, 256), "minilm": (LIGHT, 384), "model2vec": (LIGHT, 256)}


@pytest.fixture(scope="module")
def minilm_folder():
    return folders.minilm()


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """Build a peer of a checkpoint, under the peers' own interpreter where there is one."""
    work = tmp_path_factory.mktemp("peers")

    def make(name, checkpoint):
        request = {"work": work, "peer_python": PYTHON, "timeout": 120.0}
        try:
            return _peer(name, checkpoint, load(checkpoint).fingerprint, request)
        except process.CellError as failure:
            if "asterisk-edge[" in str(failure):
                pytest.skip(str(failure))
            raise

    return make


def run(row, some, out):
    """Measure a row as a worker does, and return what it answers and its vectors."""
    words = [row.python or sys.executable, "-P", "-c", CODE]
    done = subprocess.run(
        [*words, json.dumps([asdict(row), some, str(out)])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=process.environment(words[0]),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), np.load(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_a_peer_runs_the_checkpoint_in_its_own_process(peer, toy_folder, tmp_path, name):
    foreign, least = SAME[name]
    row = peer(name, toy_folder)
    assert (row.peer, row.name, row.model, row.reference) == (True, name, "", "")
    assert row.size > 1e6
    assert row.installed["bytes"] > 1e6
    assert set(row.versions) == set(row.distributions)
    some = [text.text for text in texts.load()[::12]]
    (modules, size, parts, padding, same), vectors = run(row, some, tmp_path / "v.npy")
    assert size == [256]
    assert parts
    assert 0 <= padding < 0.9
    assert same > least
    assert not set(modules) & foreign
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    truth = open_checkpoint(toy_folder).encode(some)
    assert compare(vectors, truth).cosine_mean > least


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_a_peer_with_a_model_of_its_own_says_which(peer, toy_folder, tmp_path, name):
    foreign, dimensions = OTHER[name]
    row = peer(name, toy_folder)
    assert row.model
    some = [text.text for text in texts.load()[: row.compared or 16]]
    (modules, size, _, padding, _), vectors = run(row, some, tmp_path / "v.npy")
    assert size == [dimensions]
    assert not set(modules) & foreign
    if row.reference:
        assert compare(vectors, np.load(row.reference)).cosine_mean > 0.95
    assert (padding is None) == (name == "model2vec")
    if name == "original":  # every text is as long as the longest may be
        lengths = [min(len(load(toy_folder).tokenizer.open().encode(t)), 128) for t in some]
        assert padding == pytest.approx(1 - sum(lengths) / 128 / len(some))


def traced_encoder(folder, scratch, threads=1):
    trace(folder, scratch / "model.onnx")
    write_tokenizer(load(folder), scratch)
    session = onnx_session(scratch / "model.onnx")
    tokenize, pad = tokenizer(scratch)

    def run(ids, mask):
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return PeerEncoder(tokenize, run, threads, pad=pad)


@pytest.fixture
def bert_folder(tmp_path):
    """Write a small BERT with a pooling and maps of its own."""

    def write(pooling, dense):
        source = folders.bert(tmp_path / "bert")
        return folders.sentence_transformer(
            source, tmp_path / "model", pooling=pooling, dense=dense
        )

    return write


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "dense"), [("mean", ()), ("cls", ((32, "tanh"),)), ("max", ((16, "identity"),))]
)
def test_what_is_traced_is_the_checkpoint_whatever_its_pooling_and_maps(
    bert_folder, pooling, dense
):
    torch = pytest.importorskip("torch")
    checkpoint = load(bert_folder(pooling, dense))
    some = [text.text[:800] for text in texts.load()[::20]]  # fewer than 512 tokens
    tokenizer = checkpoint.tokenizer.open()
    rows = [tokenizer.with_special_tokens(tokenizer.encode(text)) for text in some]
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row)
        mask[line, : len(row)] = 1
    with torch.inference_mode():
        vectors = sentence_module(checkpoint, attention="eager")(ids, mask).numpy()
    truth = open_checkpoint(checkpoint.folder).encode(some)
    assert normalised(vectors) == pytest.approx(normalised(truth), abs=1e-4)


@pytest.mark.slow
def test_the_traced_graph_is_the_checkpoint_whatever_stands_beside_a_text(bert_folder, tmp_path):
    """Masks and the order of a list, in float32 against PyTorch."""
    folder = bert_folder("cls", ((32, "tanh"),))
    (tmp_path / "scratch").mkdir()
    encoder = traced_encoder(folder, tmp_path / "scratch", threads=2)
    some = [text.text for text in texts.load()[::20]]
    truth = normalised(open_checkpoint(folder).encode(some))
    assert encoder.encode(some) == pytest.approx(truth, abs=1e-4)
    assert np.stack([encoder.encode(text) for text in some]) == pytest.approx(truth, abs=1e-4)
    lengths = sorted(encoder.tokenize(text).shape[1] for text in some)
    eights = [lengths[at : at + 8] for at in range(0, len(lengths), 8)]
    computed = sum(len(eight) * max(eight) for eight in eights)
    assert encoder.padding(some) == pytest.approx(1 - sum(lengths) / computed)


@pytest.mark.slow
def test_padding_of_sentence_transformers_is_counted_in_what_it_computes(peer, minilm_folder):
    """A text of 4 tokens beside one of 64: 60 of 128 are padding."""
    pytest.importorskip("sentence_transformers")
    opened = peers.find("sentence-transformers").open(Path(minilm_folder), 1)
    long = " ".join(["word"] * 62)
    assert opened.padding(["two words", long]) == pytest.approx(60 / 128)
    assert opened.padding([long]) == 0


@pytest.mark.slow
def test_the_static_model_is_what_model2vec_distils(peer, minilm_folder):
    """Its own code for it, where a version of transformers is installed that it works with."""
    pytest.importorskip("skeletoken")
    distillation = pytest.importorskip("model2vec.distill")
    ours = peers.find("model2vec").open(Path(peer("model2vec", minilm_folder).path), 1)
    theirs = distillation.distill(str(minilm_folder), device="cpu")
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
        module, _, function = peer.ROW.opener.partition(":")
        assert getattr(importlib.import_module(module), function) is peer.open
        assert callable(peer.prepare)
    with pytest.raises(UnknownName, match="no peer named 'fasttext'"):
        peers.find("fasttext")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("sentence-transformers", "sentence_transformers"),
        ("sentence-transformers-onnx", "sentence_transformers"),
        ("fastembed", "fastembed"),
        ("openvino", "nncf"),
        ("openvino-weights", "nncf"),
        ("model2vec", "model2vec"),
    ],
)
def test_a_peer_whose_package_is_missing_says_how_to_install_it(
    name, package, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AsteriskError, match=rf"{package}.*pip install 'asterisk-edge\[peers\]'"):
        build_peer(name, tmp_path, folders.minilm(), "0" * 64)
    assert not any(tmp_path.iterdir())


MODULE = """
import numpy as np
from asterisk.bench.plan import Row

ROW = Row("another", "Another", "none", "some_peer:open", "", (), ("numpy",), 0, peer=True)

def prepare(folder, checkpoint):
    assert (checkpoint / "config.json").is_file()
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(bytes(1234))
    np.save(folder / "reference.npy", np.ones((3, 4), "f4"))

def open(folder, threads):
    raise NotImplementedError
"""
BAD = {
    "crash": "import os\n    os.abort()",
    "hang": "import time\n    time.sleep(600)",
    "fail": "raise RuntimeError('two\\nlines')",
    "lack": "import a_package_that_is_not",
}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """A package's modules and its entry points, as pip leaves them."""
    root = tmp_path / "installed"
    (root / "some_peer-1.dist-info").mkdir(parents=True)
    (root / "some_peer.py").write_text(MODULE)
    lines = ["mine = some_peer", "minilm = some_peer", "broken = some_peer_that_is_not"]
    for name, what in BAD.items():
        code = MODULE.replace('    (folder / "deep").mkdir()', f"    {what}")
        (root / f"peer_that_{name}.py").write_text(code)
        lines.append(f"{name} = peer_that_{name}")
    (root / "some_peer-1.dist-info/entry_points.txt").write_text(
        "[asterisk.peers]\n" + "\n".join(lines)
    )
    monkeypatch.syspath_prepend(root)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    plugins._found.cache_clear()
    yield root
    plugins._found.cache_clear()
    sys.modules.pop("some_peer", None)


def test_a_peer_of_somebody_else_s(registered, toy_folder, tmp_path):
    assert peers.names() == (*peers.BUILTIN, *sorted(["broken", "mine", *BAD]))
    row = build_peer("mine", tmp_path / "work", toy_folder, "0" * 64)
    assert (row.name, row.peer, row.size, row.compared) == ("mine", True, 1234, 3)
    assert choose("mine", without_peers=False) == ((), ("mine",))
    assert choose("all", without_peers=False)[1] == peers.DEFAULT
    # What comes along cannot be replaced.
    assert peers.find("minilm").ROW.title.startswith(peers.MINILM)
    with pytest.raises(MissingPackage, match="some_peer_that_is_not"):
        peers.find("broken")


def test_a_peer_that_crashes_hangs_fails_or_is_missing_is_one_line_and_the_others_go_on(
    registered, toy_folder, tmp_path, capsys
):
    """None of them runs under the interpreter of those that come along."""
    request = {
        **{"runtimes": ["torch"], "checkpoint": str(toy_folder), "artifacts": str(tmp_path / "a")},
        **{"work": str(tmp_path / "w"), "buckets": [20], "every_recipe": False},
        **{"peers": [*BAD, "broken", "mine"], "peer_python": "/not/there", "timeout": 2.0},
    }
    prepared = prepare(request)
    assert [row["name"] for row in prepared["rows"]] == ["torch", "mine"]
    failed = prepared["failed"]
    assert failed["crash"].startswith("crashed (SIGABRT)")
    assert failed["hang"] == "gave no answer in 10 s and was stopped"
    assert failed["fail"] == "RuntimeError: two lines"
    assert "a_package_that_is_not" in failed["lack"]
    assert "some_peer_that_is_not" in failed["broken"]
    assert not any("\n" in line for line in failed.values())
    (kept,) = (path for path in (tmp_path / "w").iterdir() if not path.name.startswith("."))
    assert kept.name.startswith("mine-")


def test_it_is_prepared_again_when_its_code_or_the_checkpoint_changes(registered):
    peer = peers.find("mine")
    before = _edition("mine", peer, "a")
    assert _edition("mine", peer, "a") == before
    assert _edition("mine", peer, "b") != before
    (registered / "some_peer.py").write_text(MODULE + "# changed")
    assert _edition("mine", peer, "a") != before


@pytest.mark.parametrize("path", ["absent", "."])
def test_an_interpreter_that_is_none_is_one_line(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--runtime", "minilm", "--peer-python", path]) == 4
    assert capsys.readouterr().err.splitlines()[-1].endswith("is no Python interpreter")
