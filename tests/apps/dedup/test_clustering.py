"""Clusters: what holds for every one of them, and against chains and crowds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from apps.dedup.conftest import crowd, every_cosine
from asterisk.apps.dedup import stars
from asterisk.apps.dedup.clustering import clusters, linked
from asterisk.apps.dedup.comparing import pairs
from asterisk.apps.dedup.linking import Links
from asterisk.apps.dedup.partition import cells
from asterisk.apps.dedup.vectors import Vectors
from asterisk.common.vectors import to_int8


def holds(vectors, found, threshold):
    cosines = every_cosine(vectors)
    seen = [row for cluster in found for row in cluster.members]
    assert len(seen) == len(set(seen))
    for cluster in found:
        assert len(cluster.members) > 1
        assert list(cluster.members) == sorted(cluster.members)
        assert cluster.representative in cluster.members
        told = np.array(cluster.similarities)
        assert (told >= threshold).all()
        expected = cosines[cluster.representative, list(cluster.members)]
        assert np.allclose(told, expected, atol=1e-12)
    # What is near a row that stays, and stays too, has a cluster of its own or is a second centre.
    stays = np.ones(len(vectors), bool)
    stays[seen] = False
    alone = np.flatnonzero(stays)
    near = cosines[np.ix_(alone, alone)] >= threshold
    np.fill_diagonal(near, False)
    assert not near.any(), "two rows that are near one another are both alone"


def by_members(found):
    return {cluster.members: cluster.representative for cluster in found}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 60),
    spread=st.sampled_from([0.05, 0.3, 0.6]),
    threshold=st.sampled_from([0.3, 0.8, 0.9, 0.99, 1.0]),
    seed=st.integers(0, 99),
)
def test_every_cluster_is_within_the_threshold_of_what_stands_for_it(rows, spread, threshold, seed):
    vectors = crowd(rows, dim=8, centres=5, spread=spread, seed=seed)
    holds(vectors, clusters(vectors, threshold), threshold)


def test_large_groups_are_parted_the_same_in_small_blocks(monkeypatch):
    vectors = crowd(900, dim=6, centres=3, spread=0.5)
    expected = clusters(vectors, 0.9)
    assert max(len(cluster.members) for cluster in expected) > 20
    holds(vectors, expected, 0.9)
    monkeypatch.setattr(stars, "BLOCK", 17)
    assert by_members(clusters(vectors, 0.9)) == by_members(expected)
    monkeypatch.setattr(stars, "SAMPLE", 50)  # other centres, the same promises
    holds(vectors, clusters(vectors, 0.9), 0.9)


def test_a_chain_is_not_one_cluster():
    angles = np.arange(12) * np.arccos(0.95)
    rows = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(12)]).astype("f4")
    vectors = Vectors(to_int8(rows))
    assert [len(group) for group in linked(vectors, 0.94).groups()] == [12]
    found = clusters(vectors, 0.94)
    holds(vectors, found, 0.94)
    assert len(found) >= 4
    assert all(len(cluster.members) <= 3 for cluster in found)


def test_the_medoid_stands_for_a_cluster_and_the_earliest_of_two():
    angles = np.array([0.1, 0.0, -0.1, 2.0, 2.05])
    rows = np.column_stack([np.cos(angles), np.sin(angles)]).astype("f4")
    found = clusters(Vectors(to_int8(rows)), 0.9)
    assert by_members(found) == {(0, 1, 2): 1, (3, 4): 3}


def test_the_order_of_rows_does_not_matter():
    # Cosines that no two pairs share: ties are the only thing that goes by order.
    vectors = crowd(300, dim=64, centres=40, spread=0.25)
    order = np.random.default_rng(1).permutation(300)
    place = np.argsort(order)
    again = clusters(Vectors(vectors.rows[order]), 0.9)
    expected = {
        tuple(sorted(place[list(cluster.members)].tolist())) for cluster in clusters(vectors, 0.9)
    }
    assert {cluster.members for cluster in again} == expected
    assert len(expected) > 20


@pytest.mark.parametrize("threads", [1, 2])
def test_groups_are_those_of_scipy(threads):
    vectors = crowd(3_000, dim=16, centres=400, spread=0.3)
    first, second, _ = pairs(vectors, 0.9)
    near = np.zeros((3_000, 3_000), bool)
    near[first, second] = True
    count, labels = connected_components(near, directed=False)
    groups = linked(vectors, 0.9, threads=threads).groups()
    assert {tuple(group) for group in groups} == {
        tuple(np.flatnonzero(labels == label))
        for label in range(count)
        if (labels == label).sum() > 1
    }
    assert all(a[0] < b[0] for a, b in pairwise(groups))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_links_are_those_of_scipy(edges):
    links = Links(20)
    for part in (edges[::2], edges[1::2]):
        first, second = np.array(part, np.int64).reshape(-1, 2).T
        links.join(first, second)
        assert not links.apart(first, second).any()
    near = np.zeros((20, 20), bool)
    for i, j in edges:
        near[i, j] = True
    _, labels = connected_components(near, directed=False)
    expected = {
        tuple(np.flatnonzero(labels == label).tolist())
        for label in labels.tolist()
        if (labels == label).sum() > 1
    }
    assert {tuple(group.tolist()) for group in links.groups()} == expected


def test_a_crowd_of_equal_rows_is_one_cluster_and_keeps_no_pairs():
    vectors = Vectors(np.tile(np.arange(1, 9, dtype=np.int8), (12_000, 1)))
    (cluster,) = clusters(vectors, 0.9, threads=2)  # 72 million pairs
    assert cluster.members == tuple(range(12_000))
    assert cluster.representative == 0


def test_every_row_is_in_its_cells_and_the_cells_find_almost_every_pair():
    vectors = crowd(6_000, dim=48, centres=2_500, spread=0.22)
    first, second, _ = pairs(vectors, 0.9)
    assert len(first) > 1_000
    parts = list(cells(crowd_shadow(vectors), cell=300))
    held = np.bincount(np.concatenate(parts), minlength=6_000)
    assert (held == 4).all()
    within = linked(vectors, 0.9, exact=0)
    everywhere = linked(vectors, 0.9)
    assert not everywhere.apart(first, second).any()
    assert within.apart(first, second).mean() < 0.02


def crowd_shadow(vectors):
    from asterisk.apps.dedup.comparing import shadows

    return shadows(vectors)[1]


def test_cells_come_out_the_same_again():
    vectors = crowd(2_000)
    assert clusters(vectors, 0.9, exact=0) == clusters(vectors, 0.9, exact=0, threads=2)
