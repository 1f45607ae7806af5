"""Workers that answer, and workers that do not."""

from __future__ import annotations

import time

import numpy as np
import pytest

from asterisk.bench import process as spawn
from asterisk.bench.plan import Cell, Effort
from asterisk.bench.runner import Request, Work, measure

TINY = Effort(1, 1, 0.0, 3, 0.0, 0.2, 5)
PREPARED = {
    "buckets": {"8": ["a", "b"], "20": ["c"], "128": ["d"]},
    "mixed": ["a", "b", "c"],
    "long": "long",
    "texts": ["one", "two"],
}


@pytest.fixture
def work(tmp_path, row_of):
    def make(*names, timeout=30.0):
        folder = tmp_path / "work"
        folder.mkdir()
        request = Request((), (), folder, folder, folder, (1, 2), TINY, 1, timeout)
        return Work(folder, {name: row_of(name) for name in names}, PREPARED, request)

    return make


def test_a_good_worker_answers_whatever_its_engine_prints(work):
    some = work("good")
    planned = [
        Cell("good", "memory", 1, 0),
        Cell("good", "latency", 1, 0),
        Cell("good", "throughput", 2, 0),
    ]
    answers, failures = measure(some, planned, lambda line: None)
    assert failures == {"good": []}
    memory, latency, throughput = (answer for _, answer in answers["good"])
    phases = ["start", "import", "load", "first", "steady", "long", "batch"]
    assert list(memory["memory"]) == phases
    assert memory["stability"] == pytest.approx(1)
    assert np.load(some.vectors("good")).shape == (2, 4)
    assert {tokens: len(taken) for tokens, taken in latency["latency"].items()} == {
        "8": 3,
        "20": 3,
        "128": 3,
    }
    assert all(isinstance(sample, int) for sample in latency["latency"]["8"])
    assert set(latency["phases"]) == {"import", "load", "first"}
    assert len(throughput["passes"]) >= 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("refuse", "ValueError: two lines"),
        ("crash", "crashed (SIGABRT)"),
        ("leave", "ended with status 3: its last words"),
        ("rubbish", "instead of a JSON object"),
    ],
)
def test_a_bad_worker_is_one_line_and_the_others_go_on(work, name, told):
    planned = [Cell(name, "throughput", 1, 0), Cell("good", "throughput", 1, 0)]
    answers, failures = measure(work(name, "good"), planned, lambda line: None)
    (line,) = failures[name]
    assert line.startswith(f"{name} throughput, 1 thread, process 1: ")
    assert told in line
    assert "\n" not in line
    assert answers[name] == []
    assert len(answers["good"]) == 1


def test_a_worker_that_hangs_is_stopped(work):
    planned = [Cell("hang", "memory", 1, 0), Cell("good", "throughput", 1, 0)]
    began = time.monotonic()
    answers, failures = measure(work("hang", "good", timeout=5.0), planned, lambda line: None)
    assert time.monotonic() - began < 30
    assert failures["hang"] == [
        "hang memory, 1 thread, process 1: gave no answer in 5 s and was stopped"
    ]
    assert len(answers["good"]) == 1


@pytest.mark.parametrize("out", [b"", b"[1]", b"{", b"null", b"[" * 10**5])
def test_an_answer_is_one_json_object(out):
    with pytest.raises(spawn.CellError, match="instead of a JSON object"):
        spawn._answer(0, out, b"")
