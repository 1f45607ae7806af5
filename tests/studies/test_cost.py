"""What the benchmark itself costs."""

from __future__ import annotations

import sys

import pytest

from benchmarks.cost import MOST_MB, Cost, main, table
from benchmarks.cost_worker import IDLE_CALLS, TURNS, nothing, turns


def cost(**changed):
    plain = {
        "name": "onnx",
        "bare": [30_000_000, 31_000_000, 90_000_000],
        "worker": [32_000_000, 31_500_000, 32_500_000],
        "engine": [(100_000.0, 101_000.0)] * 3,
        "nothing": [(100.0, 500.0), (100.0, 700.0), (9_000.0, 100.0)],
        "reported": [80.0, 90.0, 9_000.0],
    }
    return Cost(**plain | changed)


def test_figures_are_medians():
    found = cost()
    assert found.megabytes == 1.0
    assert found.microseconds == 0.4
    assert found.missed == []
    assert table([found]).splitlines()[-1] == (
        "| onnx | 31.00 | 32.00 | 1.00 | 100.00 | 101.00 | 0.40 | 0.09 |"
    )


def test_a_target_that_is_missed_is_said():
    heavy = cost(worker=[34_100_000] * 3, nothing=[(0.0, 5_100.0)])
    assert heavy.missed == [
        "onnx: 3.10 MB, more than 3",
        "onnx: 5.10 µs a call, more than 5",
    ]


def test_off_linux_memory_is_unknown():
    found = cost(bare=None, worker=None)
    assert found.megabytes is None
    assert found.missed == []
    assert "| unavailable | unavailable | unavailable |" in table([found])


def test_both_loops_make_the_same_calls():
    seen = []
    pairs, reported = turns(seen.append, ["a", "b", "c"], 4)
    assert len(pairs) == len(reported) == TURNS
    assert seen == ["a", "b", "c", "a"] * 2 * (TURNS + 1)


def test_the_loop_adds_less_than_its_target_to_a_call():
    pairs, _ = turns(nothing, ["a"], IDLE_CALLS)
    assert min(second - first for first, second in pairs) < 5_000  # the quietest of the turns


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_worker_is_hardly_larger_than_a_bare_script(artifact_of, toy_folder, capsys):
    folder = artifact_of("onnx", "int8").parent
    options = ["--checkpoint", str(toy_folder), "--artifacts", str(folder), "--processes", "1"]
    main(["--runtime", "onnx", *options])
    _, _, row = capsys.readouterr().out.splitlines()
    bare, worker, above = (float(cell) for cell in row.split("|")[2:5])
    assert 10 < bare < worker + MOST_MB
    assert above == pytest.approx(worker - bare, abs=0.02)
    assert above < MOST_MB
