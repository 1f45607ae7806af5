"""Clusters: what holds for every one of them, and against chains and crowds."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from apps.dedup.conftest import clusters, crowd, every_cosine
from asterisk.apps.dedup import clustering
from asterisk.apps.dedup.clustering import UnionFind, connect
from asterisk.apps.dedup.vectors import Vectors, bound_vectors, cells
from asterisk.common.vectors import to_int8
from benchmarks.dedup.pairs import pairs


def assert_clusters_hold(vectors, found, threshold):
    cosines = every_cosine(vectors)
    seen = [row for cluster in found for row in cluster.members]
    assert len(seen) == len(set(seen))
    for cluster in found:
        assert len(cluster.members) > 1
        assert list(cluster.members) == sorted(cluster.members)
        assert cluster.representative in cluster.members
        similarities = np.array(cluster.similarities)
        assert (similarities >= threshold).all()
        expected = cosines[cluster.representative, list(cluster.members)]
        assert np.allclose(similarities, expected, atol=1e-12)
    # What is near a row that stays, and stays too, has a cluster of its own or is a second centre.
    stays = np.ones(len(vectors), bool)
    stays[seen] = False
    alone = np.flatnonzero(stays)
    near = cosines[np.ix_(alone, alone)] >= threshold
    np.fill_diagonal(near, False)
    assert not near.any(), "two rows that are near one another are both alone"


def by_members(found):
    return {cluster.members: cluster.representative for cluster in found}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 60),
    spread=st.sampled_from([0.05, 0.3, 0.6]),
    threshold=st.sampled_from([0.3, 0.8, 0.9, 0.99, 1.0]),
    seed=st.integers(0, 99),
)
def test_every_member_reaches_the_threshold_with_its_representative(rows, spread, threshold, seed):
    vectors = crowd(rows, dim=8, centres=5, spread=spread, seed=seed)
    assert_clusters_hold(vectors, clusters(vectors, threshold), threshold)


def test_large_groups_are_split_the_same_in_small_blocks(monkeypatch):
    vectors = crowd(900, dim=6, centres=3, spread=0.5)
    expected = clusters(vectors, 0.9)
    assert max(len(cluster.members) for cluster in expected) > 20
    assert_clusters_hold(vectors, expected, 0.9)
    monkeypatch.setattr(clustering, "BLOCK", 17)
    assert by_members(clusters(vectors, 0.9)) == by_members(expected)
    monkeypatch.setattr(clustering, "SAMPLE", 50)  # other centres, the same promises
    assert_clusters_hold(vectors, clusters(vectors, 0.9), 0.9)


def test_a_chain_is_not_one_cluster():
    angles = np.arange(12) * np.arccos(0.95)
    rows = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(12)]).astype("f4")
    vectors = Vectors(to_int8(rows))
    assert [len(group) for group in connect(vectors, 0.94).groups()] == [12]
    found = clusters(vectors, 0.94)
    assert_clusters_hold(vectors, found, 0.94)
    assert len(found) >= 4
    assert all(len(cluster.members) <= 3 for cluster in found)


def test_the_medoid_represents_a_cluster_and_the_earlier_row_a_pair():
    angles = np.array([0.1, 0.0, -0.1, 2.0, 2.05])
    rows = np.column_stack([np.cos(angles), np.sin(angles)]).astype("f4")
    found = clusters(Vectors(to_int8(rows)), 0.9)
    assert by_members(found) == {(0, 1, 2): 1, (3, 4): 3}


def test_the_order_of_rows_does_not_matter():
    # Cosines that no two pairs share: ties are the only thing that goes by order.
    vectors = crowd(300, dim=64, centres=40, spread=0.25)
    order = np.random.default_rng(1).permutation(300)
    position = np.argsort(order)
    again = clusters(Vectors(vectors.rows[order]), 0.9)
    expected = {
        tuple(sorted(position[list(cluster.members)].tolist()))
        for cluster in clusters(vectors, 0.9)
    }
    assert {cluster.members for cluster in again} == expected
    assert len(expected) > 20


@pytest.mark.parametrize("threads", [1, 2])
def test_near_rows_are_connected_as_by_scipy(threads):
    vectors = crowd(2_500, dim=16, centres=400, spread=0.3)
    first, second, _ = pairs(vectors, 0.9)
    near = np.zeros((2_500, 2_500), bool)
    near[first, second] = True
    count, labels = connected_components(near, directed=False)
    groups = connect(vectors, 0.9, threads=threads).groups()
    assert {tuple(group) for group in groups} == {
        tuple(np.flatnonzero(labels == label))
        for label in range(count)
        if (labels == label).sum() > 1
    }
    assert all(a[0] < b[0] for a, b in pairwise(groups))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_union_find_gives_the_groups_of_scipy(edges):
    groups = UnionFind(20)
    for part in (edges[::2], edges[1::2]):
        first, second = np.array(part, np.int64).reshape(-1, 2).T
        groups.union(first, second)
        assert groups.connected(first, second).all()
    near = np.zeros((20, 20), bool)
    for i, j in edges:
        near[i, j] = True
    _, labels = connected_components(near, directed=False)
    expected = {
        tuple(np.flatnonzero(labels == label).tolist())
        for label in labels.tolist()
        if (labels == label).sum() > 1
    }
    assert {tuple(group.tolist()) for group in groups.groups()} == expected


def test_a_crowd_of_equal_rows_is_one_cluster_and_keeps_no_pairs():
    vectors = Vectors(np.tile(np.arange(1, 9, dtype=np.int8), (6_000, 1)))
    (cluster,) = clusters(vectors, 0.9, threads=2)  # 18 million pairs
    assert cluster.members == tuple(range(6_000))
    assert cluster.representative == 0


def test_every_row_is_in_its_cells_and_the_cells_find_almost_every_pair():
    vectors = crowd(3_000, dim=48, centres=1_200, spread=0.22)
    first, second, _ = pairs(vectors, 0.9)
    assert len(first) > 500
    parts = list(cells(bound_vectors(vectors)[1], cell=150))
    held = np.bincount(np.concatenate(parts), minlength=3_000)
    assert (held == 4).all()
    within = connect(vectors, 0.9, exact=0)
    everywhere = connect(vectors, 0.9)
    assert everywhere.connected(first, second).all()
    assert within.connected(first, second).mean() > 0.98


def test_cells_come_out_the_same_again():
    vectors = crowd(2_000)
    assert clusters(vectors, 0.9, exact=0) == clusters(vectors, 0.9, exact=0, threads=2)


TWINS = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from asterisk.bench.worker import snapshot
from asterisk.apps.dedup.clustering import connect, split
from asterisk.apps.dedup.vectors import RowBuffer, Vectors

count, dim = int(sys.argv[1]), int(sys.argv[2])
draw, rows = np.random.default_rng(0), RowBuffer(np.int8, 1 << 20)
for _ in range(count // 2_000):
    one = draw.integers(-127, 128, (1_000, dim), np.int8)
    one[:, 0] = 127
    rows.append(one)
    rows.append(np.clip(one.astype(int) + draw.integers(-3, 4, one.shape), -127, 127))
before = snapshot()["peak"]
vectors = Vectors(rows.finish(dim), rows.release)
found = split(connect(vectors, 0.97, threads=2), vectors, 0.97)
near = sum(len(cluster.members) == 2 for cluster in found)
print(json.dumps({"near": near, "before": before, "peak": snapshot()["peak"]}))
"""


@pytest.mark.parametrize(
    ("count", "dim", "most"),
    [
        (20_000, 64, 140),
        pytest.param(200_000, 64, 250, marks=pytest.mark.campaign),
        pytest.param(1_000_000, 64, 600, marks=pytest.mark.campaign),
    ],
)
def test_memory_grows_with_the_rows_and_not_with_their_pairs(python, count, dim, most):
    done = python(TWINS, count, dim)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["peak"] < most << 20
    assert measured["near"] > 0.98 * count / 2
