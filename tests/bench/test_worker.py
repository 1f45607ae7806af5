"""Workers that answer, and workers that do not; what they measure and what they import."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

from asterisk.bench import process, worker
from asterisk.bench.plan import Cell, Effort
from asterisk.bench.prepare import _artifact, _reference
from asterisk.bench.runner import Request, Work, measure
from asterisk.bench.worker import parts, samples, warm
from asterisk.exporters.export import find_exporter as exporter
from asterisk.exporters.export import formats

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
    with pytest.raises(process.CellError, match="instead of a JSON object"):
        process._answer(0, out, b"")


SECOND = 1_000_000_000


class Ticking:
    """A clock that moves only when something is called."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0, int(cost * SECOND)
        self.seen: list[str] = []

    def __call__(self) -> int:
        return self.now

    def call(self, item: str) -> None:
        self.seen.append(item)
        self.now += self.cost


def effort(**changed):
    plain = {"calls": 10, "seconds": 1.0, "most_seconds": 5.0, "cap": 50, "warm_calls": 1}
    return plain | changed


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (0.5, 10),  # both calls and seconds
        (0.05, 20),  # seconds, calls long reached
        (1.0, 5),  # at most that long
        (0.001, 50),  # the cap
    ],
)
def test_stops_as_told(cost, expected):
    clock = Ticking(cost)
    taken = samples(clock.call, ["a", "b", "c"], effort(), clock)
    assert taken == [int(cost * SECOND)] * expected
    assert clock.seen[:4] == ["a", "b", "c", "a"]


def test_warming_makes_the_calls_it_is_told():
    seen: list[str] = []
    warm(seen.append, ["a", "b"], 5, 0.0)
    assert seen == ["a", "b", "a", "b", "a"]


def test_parts_are_measured_where_there_are_any():
    class Whole:
        def encode(self, text):
            return text

    class Split(Whole):
        def tokenize(self, text):
            return [1]

        def embed_ids(self, ids):
            return ids

    spec = {"effort": effort(cap=7), "buckets": {"8": ["a"], "128": ["b", "c"]}}
    assert parts(Whole(), spec) == {}
    found = parts(Split(), spec)
    assert list(found) == ["8", "128"]
    assert {
        (part, len(samples)) for taken in found.values() for part, samples in taken.items()
    } == {("tokenize", 7), ("embed_ids", 7)}


ROLLUP = """\
55d0e7a00000-7ffd0b3f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               61440 kB
Pss:               54321 kB
Pss_Dirty:         30000 kB
Shared_Clean:       8000 kB
Shared_Dirty:          0 kB
Private_Clean:     20000 kB
Private_Dirty:     33440 kB
Swap:                  0 kB
"""
STATUS = (
    "Name:\tpython3\nVmPeak:\t  200000 kB\nVmHWM:\t   65000 kB\nVmRSS:\t   61440 kB\nThreads:\t1\n"
)
MAPS = """\
7f00-7f10 r-xp 00000000 08:01 11  /v/lib/python3.11/site-packages/numpy/_core/_umath.so
7f10-7f20 r-xp 00000000 08:01 12  /v/lib/python3.11/site-packages/numpy.libs/libopenblas-1.so.5.0
7f20-7f30 r-xp 00000000 08:01 13  /usr/lib/libc.so.6
7f30-7f40 r--s 00000000 08:01 14  /artifacts/weights.bin
7f40-7f50 r-xp 00000000 08:01 15  /v/lib/python3.11/site-packages/engine/capi/engine.so
7f50-7f60 rw-p 00000000 00:00 0
"""


def write_process(root, pid, maps=MAPS):
    folder = root / str(pid)
    folder.mkdir()
    (folder / "maps").write_text(maps)
    (folder / "smaps_rollup").write_text(ROLLUP)
    (folder / "status").write_text(STATUS)
    return folder


def test_a_snapshot_is_in_bytes(tmp_path):
    assert worker.snapshot(write_process(tmp_path, 1)) == {
        "pss": 54321 * 1024,
        "private": 53440 * 1024,
        "rss": 61440 * 1024,
        "peak": 65000 * 1024,
    }


def test_what_the_system_does_not_tell_is_not_guessed(tmp_path):
    assert set(worker.snapshot(tmp_path / "gone").values()) == {None}


def test_sharers_are_packages_that_another_process_maps(tmp_path):
    write_process(tmp_path, 1)
    assert worker.sharers(tmp_path, 1) == []
    write_process(tmp_path, 2, MAPS.splitlines()[4])
    write_process(tmp_path, 3, MAPS.splitlines()[2])
    assert worker.sharers(tmp_path, 1) == ["engine"]


def test_parts_of_a_package_count_as_one():
    assert set(worker.libraries(MAPS).values()) == {"numpy", "engine"}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_this_process():
    found = worker.snapshot()
    assert 0 < found["private"] <= found["pss"] <= found["rss"] <= found["peak"]


def test_linux_needs_no_psutil(python):
    done = python(
        "import sys\nfrom asterisk.bench import worker\nworker.snapshot()\n"
        "print('psutil' in sys.modules, 'resource' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def without_proc(tmp_path, monkeypatch):
    """A system that has no /proc, such as macOS."""
    monkeypatch.setattr(worker, "PROC", tmp_path)


def test_without_proc_psutil_gives_what_it_can(without_proc):
    psutil = pytest.importorskip("psutil")
    resource = pytest.importorskip("resource")
    found = worker.snapshot()
    assert found["pss"] is found["private"] is None
    assert abs(found["rss"] - psutil.Process().memory_info().rss) < 50_000_000
    assert found["peak"] == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_macos_counts_its_peak_in_bytes(without_proc, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(worker.sys, "platform", "darwin")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak <= worker.snapshot()["peak"] < peak * 2


def test_without_psutil_the_rest_is_unknown(without_proc, monkeypatch):
    monkeypatch.setitem(worker.sys.modules, "psutil", None)
    monkeypatch.setitem(worker.sys.modules, "resource", None)
    assert set(worker.snapshot().values()) == {None}


ENGINES = {
    "torch": "torch",
    "onnx": "onnxruntime",
    "tflite": "ai_edge_litert",
    "gguf": "xllamacpp",
}
OTHERS = {"transformers", "tokenizers", "onnx", "jax", "asterisk.cli", "asterisk.exporters"}
CODE = """
import json, sys
from asterisk.bench import worker
spec = json.loads(sys.argv[1])
worker.start(spec, lambda phase: None)
print(json.dumps(sorted(sys.modules)))
"""


def loaded(python, row):
    spec = {**asdict(row), "threads": 1, "first": "some text"}
    done = python(CODE, json.dumps(spec))
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", formats())
def test_a_worker_imports_only_its_engine(python, toy, artifact_of, name):
    folder = artifact_of(name, exporter(name).recipes[0].name)
    modules = loaded(python, _artifact(toy, name, folder.parent))
    foreign = {module for engine, module in ENGINES.items() if engine != name}
    assert not modules & (foreign | OTHERS)


def test_the_reference_imports_pytorch_only(python, toy_folder):
    modules = loaded(python, _reference(toy_folder, ""))
    assert "torch" in modules
    assert not modules & ({"onnxruntime", "ai_edge_litert", "xllamacpp"} | OTHERS)


def test_the_parent_imports_no_engine_and_no_numpy(python):
    done = python("import sys, json, asterisk.cli.bench; print(json.dumps(sorted(sys.modules)))")
    modules = set(json.loads(done.stdout))
    assert not modules & (set(ENGINES.values()) | OTHERS - {"asterisk.cli"} | {"numpy"})
