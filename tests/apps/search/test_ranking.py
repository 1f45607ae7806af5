"""The order of hits: against brute force, against sqlite-vec's functions, and as fused."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asterisk
from apps.search.fake_runtime import (
    FakeRuntime,
    add_rows,
    check_whole,
    create_index,
    documents,
    remove_rows,
)
from asterisk.apps.search import Index
from asterisk.apps.search.database import create_tables
from asterisk.apps.search.query import fuse, top
from asterisk.apps.search.store import Blocks
from asterisk.common import vectors
from asterisk.sources.document import make_document

TESTS = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's can load extensions, many others are built without


@given(
    st.integers(0, 2**32),
    st.integers(1, 2_500),
    st.integers(1, 40),
    st.sampled_from(["int8", "float32"]),
    st.integers(0, 600),
)
@settings(max_examples=15, deadline=None)
def test_the_scan_is_brute_force(seed, count, k, precision, deleted):
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(count, 16)).astype("f4")
    rows[draw.integers(0, count, count // 3)] = rows[0]  # ties
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = draw.normal(size=16).astype("f4")
    query /= np.linalg.norm(query)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection)
    blocks = Blocks(connection, 16, precision)
    add_rows(blocks, range(1, count + 1), rows)
    gone = draw.permutation(count)[:deleted] + 1
    remove_rows(blocks, gone.tolist())
    kept = np.setdiff1d(np.arange(1, count + 1), gone)
    ids = dict(connection.execute("SELECT slot, id FROM passages"))
    for _ in range(3):  # later ones use what earlier ones have learnt and kept
        found = [(ids[slot], score) for slot, score in top(blocks.scan(query), k)]
        stored, asked = rows[kept - 1], query[None]
        if precision == "int8":
            stored, asked = vectors.to_int8(stored), vectors.to_int8(asked)
        expected = vectors.similarity(asked, stored)[0] if len(kept) else np.empty(0)
        assert len(found) == min(k, len(kept))
        best = np.sort(expected)[::-1][:k]
        np.testing.assert_allclose([score for _, score in found], best, atol=1e-6)
        by_id = dict(zip(kept.tolist(), expected.tolist(), strict=True))
        assert all(abs(by_id[row] - score) < 1e-6 for row, score in found)
    connection.close()


@given(st.lists(st.integers(-3, 3), max_size=60), st.integers(1, 70))
def test_ties_are_in_order_of_slot(values, k):
    expected = sorted(enumerate(values), key=lambda pair: (-pair[1], pair[0]))
    assert top(np.array(values, "f4"), k) == expected[:k]


def test_int8_ranks_nearly_as_float32(tmp_path):
    runtime, found = FakeRuntime(256), {}
    for precision in ("int8", "float32"):
        with create_index(tmp_path / f"{precision}.db", runtime, precision) as index:
            index.update(documents(1_500), runtime)
            found[precision] = [
                {hit.key for hit in index.search(f"query {i}", 10, runtime, "vectors")}
                for i in range(30)
            ]
    shared = [len(a & b) for a, b in zip(found["int8"], found["float32"], strict=True)]
    assert np.mean(shared) > 9.5


def test_fusion_is_the_papers_formula():
    found = dict(fuse([[1, 2, 3], [3, 4]]))
    assert found[3] == pytest.approx(1 / 63 + 1 / 61)
    assert found[1] == pytest.approx(1 / 61)
    assert [item for item, _ in fuse([[1, 2], [2, 1]])] == [1, 2]
    assert [item for item, _ in fuse([[1, 2, 3], [3, 4]])] == [3, 1, 2, 4]


def test_documents_are_ranked_by_their_best_passage(tmp_path):
    runtime = FakeRuntime(64)
    long = " ".join(f"Sentence {i} is about nothing at all." for i in range(400))
    texts = [make_document("/long", "", "", long), *documents(5)]
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update([text for text in texts if text], runtime)
        assert index.passages > 15
        for query in ("one", "two", "three"):
            hits = index.search(query, 6, runtime, "vectors")
            assert len({hit.document for hit in hits}) == 6  # however many passages are nearer
            best: dict[str, float] = {}
            wanted = vectors.to_int8(runtime.encode([query]))
            for ids, block in index.vectors():
                near = vectors.similarity(wanted, block)[0]
                for row, score in zip(ids.tolist(), near.tolist(), strict=True):
                    document, _ = index.passage(row)
                    name = document.source + document.key
                    best[name] = max(best.get(name, -1), score)
            order = sorted(best, key=lambda name: -best[name])
            assert [hit.source + hit.key for hit in hits] == order


def test_a_hit_that_only_one_side_finds_is_found_by_both_together(tmp_path):
    runtime = FakeRuntime()
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update([*documents(300), make_document("/x", "", "", "A rare zebra.")], runtime)
        hits = index.search("where is the zebra", 5, runtime, "hybrid")
        assert hits[0].source == "/x" or hits[1].source == "/x"
        assert index.search("zebra", 5, None, "words")[0].source == "/x"
        same = index.search("A rare zebra.", 5, runtime, "vectors")[0]
        assert same.source == "/x"
        assert same.similarity == pytest.approx(1, abs=1e-5)


RANKED = """
import json, sqlite3, sys
library, path, typed = sys.argv[1:4]
connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
if not hasattr(connection, "enable_load_extension"):
    print("its sqlite3 loads no extensions")
    sys.exit(77)
connection.enable_load_extension(True)
connection.load_extension(library)
print(json.dumps([
    connection.execute(
        f"SELECT passage, vec_distance_cosine({typed}(vector), {typed}(:q)) AS d "
        "FROM vectors ORDER BY d, passage LIMIT 20",
        {"q": bytes.fromhex(query)},
    ).fetchall()
    for query in json.load(sys.stdin)
]))
"""


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_sqlite_vec_ranks_the_view_as_a_search_does(tmp_path, precision):
    package = pytest.importorskip("sqlite_vec")
    runtime, path = FakeRuntime(), tmp_path / "index.db"
    queries = [f"text {i} w{i}" for i in range(10)]
    with create_index(path, runtime, precision) as index:
        index.update(documents(1_500), runtime)
        index.update(documents(1_400)[200:], runtime)
        asked = [index.blocks.stored(runtime.encode([query])).tobytes().hex() for query in queries]
        found = [index.search(query, 20, runtime, "vectors") for query in queries]
    typed = "vec_int8" if precision == "int8" else ""
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-c", RANKED, package.loadable_path(), path, typed],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no system Python")
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    with Index.open(path) as index:
        for hits, rows in zip(found, json.loads(done.stdout), strict=True):
            assert [hit.key for hit in hits] == [index.passage(row)[0].key for row, _ in rows]
            for hit, (_, distance) in zip(hits, rows, strict=True):
                assert hit.score == pytest.approx(1 - distance, abs=2e-6)


def test_the_pages_python_runs(tmp_path, monkeypatch, capsys):
    page = (TESTS.parent / "docs" / "searching.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    create = Index.create
    monkeypatch.setattr(
        asterisk, "load", lambda path, **_: contextlib.nullcontext(FakeRuntime()), raising=False
    )
    monkeypatch.setattr(
        Index, "create", lambda path, artifact: create(path, artifact, runtime=FakeRuntime())
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "leaf.txt").write_text("Leaves make sugar of light.")
    for block in blocks:
        exec(compile(block, "searching.md", "exec"), {})
    assert "leaf.txt Leaves make sugar" in capsys.readouterr().out


def test_an_index_can_be_vacuumed(tmp_path):
    runtime, path = FakeRuntime(), tmp_path / "index.db"
    with create_index(path, runtime) as index:
        index.update(documents(3_000), runtime)
        index.update(documents(50), runtime)
    size = path.stat().st_size
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
    assert path.stat().st_size < size / 2
    with Index.open(path) as index:
        check_whole(index)
        assert index.search("text 7", 1, runtime, "hybrid")[0].key == "7"
