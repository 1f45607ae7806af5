"""From workers' answers to rows; queries by one row over an index by another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asterisk.bench import collect
from asterisk.bench.collect import (
    broken_promises,
    interchange,
    least_interchange,
    measured_interchange,
)
from asterisk.bench.plan import Cell, Row
from asterisk.evaluation.fidelity import compare

TEXTS = 12


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


SPACE = "5" * 64
LIMITS = {"cosine_mean": 0.99, "cosine_min": 0.9, "overlap_at_10": 0.9}


def promising(name: str, **changed: object) -> Row:
    values = {"thresholds": LIMITS, "spaces": (SPACE,)} | changed
    return Row(name, name, "r", "m:f", "p", (), (), 1, **values)


@pytest.fixture
def vectors():
    """FP32, two near it, and one turned as a whole: consistent in itself and with nobody else."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(120, 16)).astype("f4")
    turn = np.linalg.qr(random.normal(size=(16, 16)))[0]
    return {
        "torch": truth,
        "near": truth + random.normal(0, 0.02, truth.shape).astype("f4"),
        "far": truth + random.normal(0, 0.2, truth.shape).astype("f4"),
        "turned": (truth @ turn).astype("f4"),
    }


def test_a_row_with_itself_is_its_fidelity(vectors):
    table = interchange(vectors, vectors["torch"])
    assert set(table) == set(vectors)
    for name, own in vectors.items():
        assert table[name][name]["cosine_mean"] == pytest.approx(1)
        found = compare(own, vectors["torch"])
        assert table[name][name]["overlap_at_10"] == pytest.approx(found.overlap_at_10)
        assert table[name]["torch"]["cosine_mean"] == pytest.approx(found.cosine_mean)


def test_overlap_is_with_fp32_on_both_sides(vectors):
    """By the definition: for every query, sorted, without the text itself."""
    table = interchange(vectors, vectors["torch"])
    unit = {n: v / np.linalg.norm(v, axis=1, keepdims=True) for n, v in vectors.items()}

    def ten(query, index, text):
        order = np.argsort(-(unit[index] @ unit[query][text]))
        return set([other for other in order.tolist() if other != text][:10])

    for query, index in (("far", "near"), ("near", "far"), ("torch", "far")):
        shares = [
            len(ten(query, index, text) & ten("torch", "torch", text)) / 10 for text in range(120)
        ]
        assert table[query][index]["overlap_at_10"] == pytest.approx(np.mean(shares), abs=0.002)
    assert table["far"]["near"] != table["near"]["far"]


def test_good_alone_and_useless_together(vectors):
    table = interchange(vectors, vectors["torch"])
    assert table["turned"]["turned"]["overlap_at_10"] > 0.99
    assert table["turned"]["torch"]["overlap_at_10"] < 0.3
    told = broken_promises([promising("torch", thresholds=None), promising("turned")], table, SPACE)
    assert any("turned says in compatible_with" in line and "torch" in line for line in told)
    assert len(told) == 4  # both figures, both ways


def test_only_what_is_promised_is_held_against_a_row(vectors):
    table = interchange(vectors, vectors["torch"])
    torch, turned = promising("torch", thresholds=None), promising("turned", spaces=("other",))
    assert broken_promises([torch, turned], table, SPACE) == []
    assert broken_promises([torch, promising("near")], table, SPACE) == []


def test_the_bar_is_what_both_recipes_allow_together():
    lax = promising("lax", thresholds={"cosine_mean": 0.9, "overlap_at_10": 0.8})
    angle = np.arccos(0.99) + np.arccos(0.9)
    least = least_interchange(promising("strict"), lax)
    assert least["cosine_mean"] == pytest.approx(np.cos(angle))
    assert least["overlap_at_10"] == pytest.approx(0.8)
    fp32 = promising("torch", thresholds=None)
    assert least_interchange(fp32, lax)["cosine_mean"] == pytest.approx(0.9)


def test_systems_of_others_and_unsound_vectors_are_left_out(vectors, tmp_path):
    vectors["short"] = vectors["near"][:5]
    vectors["nothing"] = np.full_like(vectors["near"], np.nan)
    vectors["peer"] = vectors["near"]
    files = {name: tmp_path / f"{name}.npy" for name in vectors}
    for name, path in files.items():
        np.save(path, vectors[name])
    rows = [replace(promising(name), peer=name == "peer") for name in (*vectors, "never ran")]
    assert list(measured_interchange(rows, files)) == ["torch", "near", "far", "turned"]
    assert measured_interchange(rows, {"near": files["near"], "far": files["far"]}) == {}
    assert measured_interchange(rows, {"torch": files["torch"]}) == {}
