"""The planted set, the methods beside ours, and the scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from apps.dedup.conftest import CHECKPOINT

from benchmarks.dedup.bars import bars, verdicts
from benchmarks.dedup.planted import BASE, DUPLICATES, NEGATIVES, Planted, cut, plant
from benchmarks.dedup.score import Truth, first_stands
from benchmarks.dedup.simhash import hashes, letters, simhash, within


def test_plants_are_the_same_for_a_seed_in_any_process(lines, python):
    made = plant(lines, 300, seed=5)
    assert made == plant(lines, 300, seed=5)
    assert made != plant(lines, 300, seed=6)
    code = (
        "from benchmarks.dedup.planted import plant; from asterisk.common.texts import load\n"
        "import hashlib; made = plant([text.text for text in load()], 300, 5)\n"
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    assert len({python(code).stdout for _ in range(2)}) == 1


def test_plants_know_what_they_are(lines):
    made = plant(lines, 600, seed=1)
    kinds = Counter(made.kind)
    assert set(kinds) <= {BASE, *DUPLICATES, *NEGATIVES}
    assert set(DUPLICATES) <= set(kinds)
    assert 0.45 < kinds[BASE] / 600 < 0.65
    for group, origin, kind, text in zip(
        made.group, made.origin, made.kind, made.texts, strict=True
    ):
        assert (group == origin) == (kind not in NEGATIVES)
        assert "\n" not in text
        assert "\t" not in text
    base = {
        origin: text
        for origin, kind, text in zip(made.origin, made.kind, made.texts, strict=True)
        if kind == BASE
    }
    for origin, kind, text in zip(made.origin, made.kind, made.texts, strict=True):
        if kind in ("number", "facts") and origin in base:
            assert text != base[origin]
        if kind == "prefix" and origin in base:
            assert text.endswith(base[origin])


def test_too_few_texts_are_said(lines):
    with pytest.raises(ValueError, match="make"):
        plant(lines[:20], 600)


def test_cuts_are_between_words():
    assert cut("one two three", 8) == ("one two", "three")
    assert cut("one", 8) == ("one", "")
    assert cut("incomprehensible", 8) == ("incompre", "hensible")


def test_hashes_are_those_of_the_library(lines):
    library = pytest.importorskip("simhash")
    texts = [*lines[:200], "", "a", "AbC", "ab cd", "αβγδε ζ", "…"]
    expected = [library.Simhash(text).value for text in texts]
    assert [simhash(letters(text)) for text in texts] == expected


def test_pairs_within_some_bits_are_those_of_python(monkeypatch):
    from benchmarks.dedup import simhash as module

    monkeypatch.setattr(module, "BLOCK", 16)
    draw = np.random.default_rng(0)
    found = draw.integers(0, 1 << 6, 60).astype(np.uint64)
    first, second, bits = within(found, 2)
    expected = {
        (i, j): (int(found[i]) ^ int(found[j])).bit_count() for j in range(60) for i in range(j)
    }
    expected = {pair: distance for pair, distance in expected.items() if distance <= 2}
    assert (
        dict(zip(zip(first.tolist(), second.tolist(), strict=True), bits.tolist(), strict=True))
        == expected
    )
    assert hashes(["one text", "one text"], "words").tolist()[0] == simhash(["one text"])


def test_scores_by_hand():
    made = Planted(
        ["a"] * 6,
        [0, 0, 0, 1, 2, 3],
        [0, 0, 0, 0, 2, 3],
        [BASE, "prefix", "suffix", "number", BASE, BASE],
    )
    truth = Truth(made)
    score = truth.of_pairs(0.9, np.array([0, 1, 2, 4]), np.array([1, 2, 3, 5]))
    assert (score.right, score.missed) == (2, 1)
    assert score.wrong == {"number": 1, "facts": 0, "topic": 0, "unrelated": 1}
    assert score.precision == 0.5
    assert score.recall == 2 / 3
    assert score.found["prefix"] == 1.0
    assert score.found["suffix"] == 0.0  # found with another edit, not with its base
    removal = truth.of_removal(0.9, np.array([0, 0, 0, 0, 4, 4]))
    assert (removal.right, removal.missed, removal.wrong["number"]) == (2, 0, 1)
    assert removal.wrong["unrelated"] == 1


def test_the_earliest_that_stays_stands_for_the_rest():
    # 0-1-2 is a chain: 1 goes, so that it no longer takes 2 along.
    assert first_stands(4, np.array([1, 0]), np.array([2, 1])).tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize(
    ("seconds", "peak", "expected"),
    [
        (120.0, 400e6, ["reached", "reached"]),
        (120.1, 399e6, ["missed", "reached"]),
        (60.0, 401e6, ["reached", "missed"]),
    ],
)
def test_bars_are_reached_or_missed(seconds, peak, expected):
    ours = {"method": "asterisk", "seconds": seconds, "peak": peak}
    report = {"rows": 100_000, "methods": [{"method": "exact", "seconds": 1, "peak": 1}, ours]}
    assert [bar.verdict for bar in bars(report)] == expected
    told = list(verdicts(report))
    assert [line.split(" | ")[-1] for line in told[-2:]] == [f"{word} |" for word in expected]
    assert f"{seconds:.1f} s" in told[-2]
    assert f"{peak / 1e6:.1f} MB" in told[-1]


def test_bars_without_a_figure_say_so():
    assert [bar.verdict for bar in bars({"rows": 100_000, "methods": []})] == ["not measured"] * 2
    ours = {"method": "asterisk", "seconds": 1, "peak": 1}
    assert bars({"rows": 99_999, "methods": [ours]}) == []
    assert list(verdicts({"rows": 99_999, "methods": [ours]})) == []


@pytest.mark.slow
def test_the_benchmark_end_to_end(tmp_path):
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.dedup", "--artifact", CHECKPOINT]
    done = subprocess.run(
        [*command, "--rows", "400", "--out", out],
        cwd=CHECKPOINT.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(out.read_text())
    assert report["bars"] == []
    assert sum(report["planted"].values()) == 400
    rows = {row["method"]: row for row in report["methods"]}
    assert list(rows) == ["asterisk", "simhash letters", "simhash words", "exact"]
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["peak"] > 1 << 20
        assert f"| {row['method']} |" in done.stdout
    at = {
        name: {score["threshold"]: score["removed"]["f1"] for score in row["scores"]}
        for name, row in rows.items()
    }
    assert at["asterisk"][0.9] > at["simhash letters"][3] > at["exact"][0]
    recalls = [score["pairs"]["recall"] for score in rows["asterisk"]["scores"]]
    assert recalls == sorted(recalls, reverse=True)


def test_texts_that_are_too_few_are_one_line(capsys):
    from benchmarks.dedup.__main__ import main

    assert main(["--artifact", "nowhere", "--rows", "90000"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
