"""Texts through the real model: what counts as the same, and degenerate sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.apps.dedup import deduplicate
from asterisk.apps.dedup.collecting import Collected
from asterisk.apps.dedup.normal import digest, normal
from asterisk.apps.dedup.result import Cluster
from asterisk.apps.dedup.spool import Rows, Spool
from asterisk.common.errors import OutputError, UsageError

NEWS = "The council voted on Tuesday to close the old bridge for repairs until the spring."
OTHER = "A new species of frog has been described from the cloud forests of Ecuador."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It’s “done” – now", 'it\'s "done" - NOW'),
        ("Straße\tund\u00a0 Weg\n", "STRASSE und Weg"),
        ("ﬁne\u00adly ２０", "finely 20"),
        ("a\u200bb\ufeff", "ab"),
    ],
)
def test_typesetting_makes_no_difference(one, other):
    assert digest(one) == digest(other)
    assert normal(normal(one)) == normal(one)


@pytest.mark.parametrize(("one", "other"), [("C++", "C"), ("3 dead", "7 dead"), ("ab", "a b")])
def test_signs_numbers_and_words_do(one, other):
    assert digest(one) != digest(other)


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\u00a0"])
def test_nothing_has_no_digest(text):
    assert digest(text) == b""


@given(st.lists(st.sampled_from(["a", "b", "c", "", " "]), max_size=20))
def test_copies_are_those_of_a_dictionary(texts):
    with Spool() as spool:
        collected = Collected(spool)
        for text in texts:
            collected.append(text, text)
        copies = collected.finish()
        assert list(spool) == texts
    firsts = {}
    for row, text in enumerate(texts):
        if text.strip():
            firsts.setdefault(text, []).append(row)
    assert [copies.of(number) for number in range(len(copies.distinct))] == list(firsts.values())
    assert copies.distinct.tolist() == [rows[0] for rows in firsts.values()]
    assert copies.empty == sum(not text.strip() for text in texts)
    assert copies.copies == len(texts) - copies.empty - len(firsts)


def test_near_ones_are_found_and_others_left(shipped):
    texts = [OTHER, NEWS, NEWS.upper(), "", f"Update: {NEWS}", f"{NEWS} Read more…", OTHER]
    found = deduplicate(texts, shipped, threads=2)
    assert {cluster.members for cluster in found.clusters} == {(1, 2, 4, 5), (0, 6)}
    assert found.clusters[0].members == (1, 2, 4, 5)  # the largest comes first
    assert (found.rows, found.empty, found.exact, found.removed) == (7, 1, 2, 4)
    assert len(found.kept()) == 3
    assert 3 in found.kept()
    assert 0 in found.kept()
    assert found.clusters[1].similarities == (1.0, 1.0)


def test_a_planted_set_of_shipped_texts(shipped, lines):
    from benchmarks.dedup.planted import plant
    from benchmarks.dedup.score import Truth

    made = plant(lines, 500, seed=3)
    found = deduplicate(made.texts, shipped, threads=2)
    stands = np.arange(len(made.texts))
    for cluster in found.clusters:
        stands[list(cluster.members)] = cluster.representative
    score = Truth(made).of_removal(0.9, stands)
    assert score.recall > 0.85
    assert score.precision > 0.85


@pytest.mark.parametrize(
    ("texts", "clusters", "empty"),
    [
        ([], (), 0),
        ([NEWS], (), 0),
        (["", " ", "\n"], (), 3),
        ([NEWS] * 5, (Cluster(0, (0, 1, 2, 3, 4), (1.0,) * 5),), 0),
        (["", NEWS, NEWS], (Cluster(1, (1, 2), (1.0, 1.0)),), 1),
    ],
    ids=["none", "one", "blank", "equal", "blank and equal"],
)
def test_degenerate_sets(shipped, texts, clusters, empty):
    found = deduplicate(texts, shipped)
    assert (found.clusters, found.empty, found.rows) == (clusters, empty, len(texts))


@pytest.mark.parametrize("copies", [50_000, pytest.param(1_000_000, marks=pytest.mark.campaign)])
def test_copies_of_one_are_embedded_once(shipped, copies):
    found = deduplicate((NEWS for _ in range(copies)), shipped)
    assert found.removed == copies - 1
    assert found.kept() == [0]


def test_long_texts_are_counted(shipped):
    assert deduplicate([f"{NEWS} " * 60, OTHER], shipped).cut == 1


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_that_cannot_be_meant(shipped, threshold):
    with pytest.raises(UsageError):
        deduplicate([NEWS], shipped, threshold=threshold)


def test_only_texts_are_taken(shipped):
    with pytest.raises(UsageError, match="int"):
        deduplicate([NEWS, 3], shipped)


def test_rows_beyond_the_limit_are_in_a_file_and_the_same():
    draw = np.random.default_rng(0)
    blocks = [draw.integers(-127, 128, (size, 6), np.int8) for size in (3, 1, 50, 7)]
    expected = np.concatenate(blocks)
    for limit in (0, 100, 10_000):
        rows = Rows(np.int8, limit)
        for block in blocks:
            rows.append(block)
        found = rows.finish(6)
        assert np.array_equal(found, expected)
        assert found.flags.writeable == (limit > 1_000)
        rows.release()
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["spool", "rows"])
def test_a_full_disk_is_one_line(kind, monkeypatch):
    def full():
        return open("/dev/full", "r+b", buffering=0)  # noqa: PTH123

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="temporary file"):
        fill(kind)


def fill(kind):
    if kind == "spool":
        with Spool() as spool:
            spool.append("text")
    else:
        Rows(np.int8, 0).append(np.zeros((2, 2), np.int8))
