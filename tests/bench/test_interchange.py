"""Queries by one row over an index by another, on vectors whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asterisk.bench.collect import bar, interchange, measured, not_borne_out
from asterisk.bench.plan import Row
from asterisk.evaluation.fidelity import compare

SPACE = "5" * 64
LIMITS = {"cosine_mean": 0.99, "cosine_min": 0.9, "overlap_at_10": 0.9}


def row(name: str, **changed: object) -> Row:
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
    told = not_borne_out([row("torch", thresholds=None), row("turned")], table, SPACE)
    assert any("turned says in compatible_with" in line and "torch" in line for line in told)
    assert len(told) == 4  # both figures, both ways


def test_only_what_is_promised_is_held_against_a_row(vectors):
    table = interchange(vectors, vectors["torch"])
    torch, turned = row("torch", thresholds=None), row("turned", spaces=("other",))
    assert not_borne_out([torch, turned], table, SPACE) == []
    assert not_borne_out([torch, row("near")], table, SPACE) == []


def test_the_bar_is_what_both_recipes_allow_together():
    lax = row("lax", thresholds={"cosine_mean": 0.9, "overlap_at_10": 0.8})
    angle = np.arccos(0.99) + np.arccos(0.9)
    assert bar(row("strict"), lax)["cosine_mean"] == pytest.approx(np.cos(angle))
    assert bar(row("strict"), lax)["overlap_at_10"] == pytest.approx(0.8)
    assert bar(row("torch", thresholds=None), lax)["cosine_mean"] == pytest.approx(0.9)


def test_systems_of_others_and_unsound_vectors_are_left_out(vectors, tmp_path):
    vectors["short"] = vectors["near"][:5]
    vectors["nothing"] = np.full_like(vectors["near"], np.nan)
    vectors["peer"] = vectors["near"]
    files = {name: tmp_path / f"{name}.npy" for name in vectors}
    for name, path in files.items():
        np.save(path, vectors[name])
    rows = [replace(row(name), peer=name == "peer") for name in (*vectors, "never ran")]
    assert list(measured(rows, files)) == ["torch", "near", "far", "turned"]
    assert measured(rows, {"near": files["near"], "far": files["far"]}) == {}
    assert measured(rows, {"torch": files["torch"]}) == {}
