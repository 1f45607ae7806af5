"""The benchmark of search: its corpus, its figures, and a whole run at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asterisk.common import texts
from asterisk.common.errors import InputError
from benchmarks.search import worker
from benchmarks.search.corpus import PASSAGES, SUMMARIES, corpus, there
from benchmarks.search.report import bars, markdown
from benchmarks.search.run import BRUTE, MODES, SCAN, Cell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path):
    """A table and plain lines."""
    table, lines = tmp_path / "table.tsv", tmp_path / "lines.txt"
    rows = [f"{n % 4}\tRow number {n} tells about a subject of its own." for n in range(40)]
    table.write_text("\n".join([*rows, rows[0], "3\tshort", ""]), "utf-8")
    lines.write_text("".join(f"Line number {n} has no columns, only words.\n" for n in range(40)))
    return [table, lines]


def test_texts_are_the_last_column_and_queries_are_of_others(files):
    found = corpus(files, 60, 20)
    assert (len(found.texts), len(found.queries)) == (60, 20)
    assert len(set(found.texts)) == 60
    assert all(text.startswith(("Row number", "Line number")) for text in found.texts)
    starts = {" ".join(text.split()[:8]) for text in found.texts}
    assert not starts & set(found.queries)
    assert found.source == "table.tsv, lines.txt"
    assert corpus(files, 60, 20) == found
    with pytest.raises(InputError, match="80 texts, and 81 are needed"):
        corpus(files, 61, 20)
    with pytest.raises(InputError, match="No such file"):
        corpus([files[0].with_name("none.tsv")], 1, 1)


def test_compressed_files(files):
    zstandard = pytest.importorskip("zstandard")
    packed = files[0].with_suffix(".tsv.zst")
    packed.write_bytes(zstandard.compress(files[0].read_bytes()))
    assert corpus([packed], 30, 10).texts == corpus(files[:1], 30, 10).texts


def test_without_files_the_shipped_texts_are_edited():
    found = corpus([], 3_000, 50)
    assert len(set(found.texts)) == 3_000
    assert "repeated with edits" in found.source
    shipped = {text.text for text in texts.load()}
    assert 700 < len(shipped & set(found.texts)) < 1_000


def test_data_is_used_only_if_it_is_all_there(tmp_path):
    assert there(tmp_path, SUMMARIES) == there(tmp_path, PASSAGES) == []
    for name in SUMMARIES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        complete = name == SUMMARIES[-1]
        assert bool(there(tmp_path, SUMMARIES)) == complete


class Counting:
    """A runtime that counts what it embeds."""

    fingerprint = "f"

    def __init__(self):
        self.seen: list[str] = []

    def encode(self, some, **_):
        self.seen += some
        return np.array([[len(text), 1] for text in some], np.float32)


def test_a_remembered_text_is_embedded_once():
    runtime = Counting()
    once = worker.Remembering(runtime)
    first = once.encode(["a", "bb", "a"])
    np.testing.assert_array_equal(first, [[1, 1], [2, 1], [1, 1]])
    np.testing.assert_array_equal(once.encode(["ccc", "bb"]), [[3, 1], [2, 1]])
    np.testing.assert_array_equal(once.encode("bb"), [2, 1])
    assert runtime.seen == ["a", "bb", "ccc"]
    assert once.fingerprint == "f"


def recorded(passages, p95, pss, rate):
    """A report in which every bar has a figure."""

    def cell(count, engine=SCAN, precision="int8"):
        one = {
            "samples": dict.fromkeys(MODES, [int(p95[count] * 1e6)] * 20),
            "cpu": dict.fromkeys(MODES, [1_500_000] * 20),
            "memory": {"pss": int(pss * 1e6)},
            "shared": [],
            "first_ns": 1e8,
        }
        return {"corpus": str(count), "precision": precision, "engine": engine, "processes": [one]}

    return {
        "settings": {"artifact": "a", "hits": 10, "processes": 1},
        "machine": {"cores": 2, "python": "3"},
        "corpora": {},
        "indexes": {
            str(count): {"int8": {"passages": count, "bytes": 1e6}, "float32": {"bytes": 2e6}}
            for count in passages
        },
        "rates": [
            {"threads": 2, "texts": 9, "tokens_mean": 40.0, "indexed_per_s": [rate],
             "embedded_per_s": [rate], "cpu_ns": [5e5], "peak": 1},
        ],
        "cells": [cell(count) for count in passages] + [cell(passages[0], BRUTE, "float32")],
        "warnings": [],
        "failed": {"x": "why"},
    }  # fmt: skip


def test_bars_are_held_against_the_usual_way_of_searching():
    good = recorded((5_000, 100_500), {5_000: 4.9, 100_500: 49.0}, 109.0, 2_001.0)
    assert [bar.verdict for bar in bars(good)] == ["reached"] * 4
    bad = recorded((5_000, 100_500), {5_000: 5.1, 100_500: 51.0}, 111.0, 1_999.0)
    assert [bar.verdict for bar in bars(bad)] == ["missed"] * 4
    small = recorded((300, 600), {300: 1.0, 600: 1.0}, 20.0, 3_000.0)
    assert [bar.verdict for bar in bars(small)] == [
        "not measured", "not measured", "reached", "not measured"
    ]  # fmt: skip
    shown = markdown(good)
    assert "| query over 100,000, p95 | ≤ 50 ms | 49.0 ms | reached |" in shown
    assert "- failed: x: why" in shown
    assert "| 4.90 ms | 4.90 ms | 1.50 ms | 1.50 ms | 100 ms | 109.0 MB | 1.0 MB |" in shown


def test_a_cell_has_a_name():
    cell = Cell("summaries", "int8", SCAN)
    assert replace(cell, engine=BRUTE).name == "summaries, int8, numpy in memory"


def test_the_parent_maps_no_engine():
    code = """
import sys, benchmarks.search.__main__
print(sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "torch", "onnxruntime"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_whole_run(artifact, tmp_path):
    command = [sys.executable, "-m", "benchmarks.search", "--artifact", artifact]
    sizes = [
        "--data",
        tmp_path,
        "--small",
        200,
        "--large",
        300,
        "--queries",
        5,
        "--processes",
        1,
        "--timed",
        50,
    ]
    done = subprocess.run(
        [*map(str, [*command, *sizes, "--out", tmp_path / "out", "--seed", 1])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/search.json").read_text("utf-8"))
    assert (tmp_path / "out/search.md").read_text("utf-8") == done.stdout == markdown(report)
    assert report["failed"] == {}
    cells = {(it["corpus"], it["precision"], it["engine"]) for it in report["cells"]}
    assert cells == {
        (name, *how)
        for name in ("summaries", "passages")
        for how in (("int8", SCAN), ("float32", SCAN), ("float32", BRUTE))
    }
    for cell in report["cells"]:
        (process,) = cell["processes"]
        assert process["found"] == 10
        modes = ["vectors"] if cell["engine"] == BRUTE else list(MODES)
        assert list(process["samples"]) == modes
        for mode, samples in process["samples"].items():
            assert len(samples) == len(process["cpu"][mode]) == 5
            assert min(samples) > 10_000  # ns: nothing is that fast
            # One thread: no query can have worked longer than it took.
            assert all(
                cpu <= took * 1.1 + 1e5
                for cpu, took in zip(process["cpu"][mode], samples, strict=True)
            )
        assert process["first_ns"] > max(map(max, process["samples"].values()))
    assert [rate["threads"] for rate in report["rates"]] == [1, 2]
    assert all(rate["cpu_ns"][0] > 50_000 for rate in report["rates"])
    for index in report["indexes"].values():
        assert index["float32"]["bytes"] > index["int8"]["bytes"]
    assert not list(tmp_path.glob("*.db"))


def test_a_worker_says_in_one_line_what_went_wrong(tmp_path):
    told = worker.attempt({"kind": "rate", "texts": str(tmp_path / "none"), "threads": 1})
    assert told == {"error": told["error"]}
    assert "\n" not in told["error"]
    assert "none" in told["error"]


def test_a_folder_that_cannot_be_made_is_told_at_once(files, tmp_path):
    command = [sys.executable, "-m", "benchmarks.search", "--artifact", tmp_path]
    done = subprocess.run(
        [*map(str, [*command, "--out", files[0]])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr == f"python -m benchmarks.search: {files[0]}: File exists\n"
    assert done.stdout == ""
