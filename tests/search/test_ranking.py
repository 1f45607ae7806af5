"""The order of hits: against brute force, against sqlite-vec, and as fused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asterisk
from asterisk import vectors
from asterisk.errors import UsageError
from asterisk.search import Index, extension
from asterisk.search.blocks import Blocks, top
from asterisk.search.fusion import fused
from asterisk.search.schema import make
from asterisk.sources.document import made
from search.standing_in import Drawn, check_whole, documents, fresh

TESTS = Path(__file__).resolve().parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's can load extensions, many others are built without


@given(
    st.integers(0, 2**32),
    st.integers(1, 2_500),
    st.integers(1, 40),
    st.sampled_from(["int8", "float32"]),
    st.integers(0, 600),
)
@settings(max_examples=30, deadline=None)
def test_the_scan_is_brute_force(seed, count, k, precision, deleted):
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(count, 16)).astype("f4")
    rows[draw.integers(0, count, count // 3)] = rows[0]  # ties
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = draw.normal(size=16).astype("f4")
    query /= np.linalg.norm(query)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    make(connection, 16, precision)
    blocks = Blocks(connection, 16, precision)
    blocks.insert(range(1, count + 1), rows)
    gone = draw.permutation(count)[:deleted] + 1
    blocks.delete(gone.tolist())
    kept = np.setdiff1d(np.arange(1, count + 1), gone)
    for _ in range(3):  # later ones use what earlier ones have learnt and kept
        found = top(*blocks.scan(query), k)
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
def test_ties_are_in_order_of_id(values, k):
    ids, scores = np.arange(len(values)) * 3, np.array(values, "f4")
    expected = sorted(zip(ids.tolist(), values, strict=True), key=lambda pair: (-pair[1], pair[0]))
    assert top(ids, scores, k) == expected[:k]


def test_int8_ranks_nearly_as_float32(tmp_path):
    runtime, found = Drawn(256), {}
    for precision in ("int8", "float32"):
        with fresh(tmp_path / f"{precision}.db", runtime, precision) as index:
            index.update(documents(1_500), runtime)
            found[precision] = [
                {hit.key for hit in index.search(f"query {i}", 10, runtime, "vectors")}
                for i in range(30)
            ]
    shared = [len(a & b) for a, b in zip(found["int8"], found["float32"], strict=True)]
    assert np.mean(shared) > 9.5


def test_fusion_is_the_papers_formula():
    found = dict(fused([[1, 2, 3], [3, 4]]))
    assert found[3] == pytest.approx(1 / 63 + 1 / 61)
    assert found[1] == pytest.approx(1 / 61)
    assert [item for item, _ in fused([[1, 2], [2, 1]])] == [1, 2]
    assert [item for item, _ in fused([[1, 2, 3], [3, 4]])] == [3, 1, 2, 4]


def test_documents_are_ranked_by_their_best_passage(tmp_path):
    runtime = Drawn(64)
    long = " ".join(f"Sentence {i} is about nothing at all." for i in range(400))
    texts = [made("/long", "", "", long), *documents(5)]
    with fresh(tmp_path / "index.db", runtime) as index:
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
    runtime = Drawn()
    with fresh(tmp_path / "index.db", runtime) as index:
        index.update([*documents(300), made("/x", "", "", "A rare zebra.")], runtime)
        hits = index.search("where is the zebra", 5, runtime, "hybrid")
        assert hits[0].source == "/x" or hits[1].source == "/x"
        assert index.search("zebra", 5, None, "words")[0].source == "/x"
        same = index.search("A rare zebra.", 5, runtime, "vectors")[0]
        assert same.source == "/x"
        assert same.similarity == pytest.approx(1, abs=1e-5)


def _system(code: str, *arguments: object) -> dict:
    """Run code where SQLite loads extensions; skip without such a Python of this version."""
    packages = [part for part in sys.path if "site-packages" in part]
    source = str(TESTS.parent / "src")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(TESTS), source, *packages]))
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no system Python")
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BEGIN = """
import json, sqlite3, sys
try:
    import numpy as np
    from asterisk.search import Index, extension
    from search.standing_in import Drawn, check_whole, documents, fresh
except ImportError as failure:
    print("another Python:", failure); sys.exit(77)
reason = extension.load(sqlite3.connect(":memory:"))
if reason:
    print(reason); sys.exit(77)
path, precision = sys.argv[1:3]
runtime = Drawn()
"""

QUERIES = [f"text {i} w{i}" for i in range(25)]

SAME = (
    BEGIN
    + """
found = {}
for engine in ("scan", "sqlite-vec"):
    with Index.open(path, engine=engine) as index:
        found[engine] = [
            [(hit.source, hit.key, hit.similarity) for hit in index.search(q, 20, runtime, mode)]
            for q in sys.argv[3:] for mode in ("vectors", "hybrid")
        ]
print(json.dumps(found))
"""
)

WRITES = (
    BEGIN
    + """
connection = sqlite3.connect(path)
extension.load(connection)
run = connection.execute
rows = dict(run("SELECT rowid, embedding FROM vectors").fetchall())
first = min(rows)
run("DELETE FROM vectors WHERE rowid IN (?, ?)", (first, first + 1))
value = "vec_int8(?)" if precision == "int8" else "?"
run(f"INSERT INTO vectors(rowid, embedding) VALUES (?, {value})", (first, rows[first]))
run(f"INSERT INTO vectors(rowid, embedding) VALUES (?, {value})", (first + 1, rows[first + 1]))
connection.commit()
print(json.dumps({"rows": len(rows), "ok": run("PRAGMA integrity_check").fetchone()[0]}))
"""
)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_sqlite_vec_reads_and_writes_the_same_file(tmp_path, precision):
    runtime, path = Drawn(), tmp_path / "index.db"
    with fresh(path, runtime, precision) as index:
        index.update(documents(1_500), runtime)
        index.update(documents(1_400)[200:], runtime)
    for _ in range(2 if precision == "int8" else 1):
        found = _system(SAME, path, precision, *QUERIES)
        assert len(found["scan"]) == 2 * len(QUERIES)
        for one, other in zip(found["scan"], found["sqlite-vec"], strict=True):
            assert [hit[:2] for hit in one] == [hit[:2] for hit in other]
            for a, b in zip(one, other, strict=True):
                assert a[2] == pytest.approx(b[2], abs=2e-6)
        # The extension's own deletes and inserts, and then ours over them.
        assert _system(WRITES, path, precision) == {"rows": runtime_rows(path), "ok": "ok"}
        with fresh(path, runtime, precision) as index:
            check_whole(index)
            index.update(documents(1_450)[100:], runtime)
            check_whole(index)


def runtime_rows(path: Path) -> int:
    with Index.open(path) as index:
        return index.passages


def test_a_library_of_another_machine_is_not_loaded(tmp_path):
    def library(machine: int, bits: int = 2) -> Path:
        path = tmp_path / "vec0.so"
        path.write_bytes(b"\x7fELF" + bytes([bits, 1]) + bytes(12) + machine.to_bytes(2, "little"))
        return path

    own = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine)
    if own is None:
        pytest.skip("no known machine")
    assert extension.unfit(library(own)) == ""
    assert "another machine" in extension.unfit(library(40, bits=1))  # as in a wheel that shipped
    assert "another machine" in extension.unfit(library(own, bits=1))
    (tmp_path / "short.so").write_bytes(b"\x7fELF")
    assert "not a library" in extension.unfit(tmp_path / "short.so")
    assert "cannot be read" in extension.unfit(tmp_path / "none.so")


def test_sqlite_vec_where_it_cannot_be_used_is_one_line(tmp_path):
    runtime = Drawn()
    with fresh(tmp_path / "index.db", runtime):
        pass
    if not extension.load(sqlite3.connect(":memory:")):
        pytest.skip("this Python can load it")
    with pytest.raises(UsageError, match=r"sqlite-vec|extensions"):
        Index.open(tmp_path / "index.db", engine="sqlite-vec")


def test_the_pages_python_runs(tmp_path, monkeypatch, capsys):
    page = (TESTS.parent / "docs" / "searching.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    create = Index.create
    monkeypatch.setattr(
        asterisk, "load", lambda path, **_: contextlib.nullcontext(Drawn()), raising=False
    )
    monkeypatch.setattr(
        Index, "create", lambda path, artifact: create(path, artifact, runtime=Drawn())
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "leaf.txt").write_text("Leaves make sugar of light.")
    for block in blocks:
        exec(compile(block, "searching.md", "exec"), {})
    assert "leaf.txt Leaves make sugar" in capsys.readouterr().out


def test_an_index_can_be_vacuumed(tmp_path):
    runtime, path = Drawn(), tmp_path / "index.db"
    with fresh(path, runtime) as index:
        index.update(documents(3_000), runtime)
        index.update(documents(50), runtime)
    size = path.stat().st_size
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
    assert path.stat().st_size < size / 2
    with Index.open(path) as index:
        check_whole(index)
        assert index.search("text 7", 1, runtime, "hybrid")[0].key == "7"
