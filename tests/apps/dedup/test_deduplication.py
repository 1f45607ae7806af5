"""Texts through the real model, degenerate sets, and numbers that keep texts apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.dedup.conftest import clusters, crowd, every_cosine
from asterisk.apps.dedup import Cluster, deduplicate
from asterisk.apps.dedup.deduplication import escaped, first_words
from asterisk.apps.dedup.texts import contradict
from asterisk.common.errors import UsageError

NEWS = "The council voted on Tuesday to close the old bridge for repairs until the spring."
OTHER = "A new species of frog has been described from the cloud forests of Ecuador."
DEAD = "Rescue teams said on Monday that {} people died when the ferry sank off the coast."


def test_near_duplicates_are_found_and_other_texts_left(shipped):
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

    made = plant(lines, 300, seed=3)
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


@pytest.mark.parametrize("copies", [20_000, pytest.param(1_000_000, marks=pytest.mark.campaign)])
def test_copies_of_one_are_embedded_once(shipped, copies):
    found = deduplicate((NEWS for _ in range(copies)), shipped)
    assert found.removed == copies - 1
    assert found.kept() == [0]


def test_long_texts_are_counted(shipped):
    assert deduplicate([f"{NEWS} " * 60, OTHER], shipped).cut == 1


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_out_of_range_are_refused(shipped, threshold):
    with pytest.raises(UsageError):
        deduplicate([NEWS], shipped, threshold=threshold)


def test_only_texts_are_taken(shipped):
    with pytest.raises(UsageError, match="int"):
        deduplicate([NEWS, 3], shipped)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 5), st.sampled_from([0.5, 0.8, 0.9]))
def test_no_member_contradicts_its_representative(seed, many, threshold):
    vectors = crowd(60, dim=8, centres=4, spread=0.3, seed=seed)
    figures = np.random.default_rng(seed).integers(0, many, (60, 2)).astype(str).tolist()
    said = [tuple(sorted(figures[row][: 1 + row % 2])) for row in range(60)]
    cosines, seen = every_cosine(vectors), set()
    for cluster in clusters(vectors, threshold, numbers=lambda row: said[row]):
        representative = cluster.representative
        assert len(cluster.members) > 1
        assert representative in cluster.members
        assert not seen & set(cluster.members)
        seen |= set(cluster.members)
        for row in cluster.members:
            assert not contradict(said[row], said[representative])
            assert row == representative or cosines[row, representative] >= threshold


def test_equal_numbers_change_nothing():
    vectors = crowd(300, spread=0.3)
    assert clusters(vectors, 0.8, numbers=lambda row: ("1",)) == clusters(vectors, 0.8)


def test_what_a_number_drives_out_is_a_cluster_of_its_own(shipped):
    texts = [DEAD.format(7), f"Update: {DEAD.format(7)}", DEAD.format(9), DEAD.format(9).upper()]
    texts += [f"{DEAD.format(9)} Read more…", DEAD.format("the")]
    found = deduplicate(texts, shipped, threshold=0.8)
    groups = {frozenset(cluster.members) - {5} for cluster in found.clusters}
    assert groups == {frozenset({0, 1}), frozenset({2, 3, 4})}
    together = deduplicate(texts, shipped, threshold=0.8, numbers="ignore")
    assert [cluster.members for cluster in together.clusters] == [(0, 1, 2, 3, 4, 5)]


def test_other_values_of_numbers_are_refused(shipped):
    with pytest.raises(UsageError, match="differ"):
        deduplicate(["a", "b"], shipped, numbers="maybe")


def test_cells_and_first_words():
    assert escaped("a\\\tb\r\n\x1b") == r"a\\\tb\r\n\x1b"
    assert escaped("plain, größer") == "plain, größer"
    assert first_words("a\x1b[31m\u202e\nb") == "a [31m b"
    assert first_words("one two " * 40).endswith("…")
    assert len(first_words("x" * 500)) <= 73
    assert first_words("short") == "short"
