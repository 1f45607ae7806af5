"""Numbers that keep texts apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.dedup.conftest import crowd, every_cosine
from asterisk.apps.dedup import deduplicate
from asterisk.apps.dedup.clustering import clusters
from asterisk.apps.dedup.numbers import contradict, numbers
from asterisk.common.errors import UsageError

FIGURES = st.lists(st.integers(0, 10**6).map(str), max_size=6)
DEAD = "Rescue teams said on Monday that {} people died when the ferry sank off the coast."


def of(figures):
    return numbers(" of ".join(figures))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("none at all", ()),
        ("1,000 and 1000", ("1000", "1000")),
        ("2.5% in 2019, 12 more", ("12", "2019", "25")),
        ("On 07.03. at 00:00", ("0", "703")),
        ("covid19, ２０ and x²", ("19", "2", "20")),
    ],
)
def test_numbers_of_a_text(text, expected):
    assert numbers(text) == tuple(sorted(expected))


@given(st.text(max_size=60))
def test_case_and_punctuation_change_no_number(text):
    assert numbers(text) == numbers(text.upper()) == numbers(f"“{text}” – …")
    assert numbers(re.sub(r"[^\w\s]", "", numbers_kept(text))) == numbers(numbers_kept(text))


def numbers_kept(text):
    """Only what survives in ASCII: elsewhere compatibility forms make signs of letters."""
    return text.encode("ascii", "ignore").decode()


@given(FIGURES, FIGURES)
def test_what_one_side_alone_has_is_no_contradiction(own, more):
    assert not contradict(of(own), of(own + more))
    assert not contradict(of(own + more), of(own))
    assert not contradict(of(own), of(own[::-1]))


@given(FIGURES, st.data())
def test_a_changed_number_is_one(figures, data):
    figures = [*figures, "17"]
    place = data.draw(st.integers(0, len(figures) - 1))
    other = data.draw(st.integers(0, 10**6).map(str).filter(lambda one: one != figures[place]))
    changed = [*figures[:place], other, *figures[place + 1 :]]
    assert contradict(of(figures), of(changed))
    assert contradict(of(changed), of(figures))


@given(FIGURES, FIGURES)
def test_contradiction_is_that_of_sorted_lists(one, other):
    left, lacking = list(of(other)), 0
    for figure in of(one):
        if figure in left:
            left.remove(figure)
        else:
            lacking += 1
    assert contradict(of(one), of(other)) == (lacking > 0 and len(left) > 0)


@given(st.integers(0, 50), st.integers(1, 5), st.sampled_from([0.5, 0.8, 0.9]))
def test_no_member_contradicts_what_stands_for_it(seed, many, threshold):
    vectors = crowd(60, dim=8, centres=4, spread=0.3, seed=seed)
    figures = np.random.default_rng(seed).integers(0, many, (60, 2)).astype(str).tolist()
    said = [of(figures[row][: 1 + row % 2]) for row in range(60)]
    cosines, seen = every_cosine(vectors), set()
    for cluster in clusters(vectors, threshold, numbers=lambda row: said[row]):
        stands = cluster.representative
        assert len(cluster.members) > 1
        assert stands in cluster.members
        assert not seen & set(cluster.members)
        seen |= set(cluster.members)
        for row in cluster.members:
            assert not contradict(said[row], said[stands])
            assert row == stands or cosines[row, stands] >= threshold


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


def test_other_words_are_refused(shipped):
    with pytest.raises(UsageError, match="differ"):
        deduplicate(["a", "b"], shipped, numbers="maybe")
