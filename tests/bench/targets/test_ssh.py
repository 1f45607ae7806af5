"""Another machine over a real ssh, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from asterisk.bench import process
from asterisk.bench.plan import Cell, Effort, Row
from asterisk.bench.runner import Request, Work, measure, measure_targets
from asterisk.bench.targets import Ssh, TargetError, opened, ssh
from asterisk.common import ssh as client
from asterisk.common.terminal import excerpt

TINY = Effort(1, 1, 0.0, 3, 0.0, 0.2, 5)
TEXTS = ["one", "two", "three"]
PREPARED = {
    "buckets": {"8": ["a", "b"], "20": ["c"], "128": ["d"]},
    "mixed": ["a", "b", "c"],
    "long": "long",
    "texts": TEXTS,
}


@pytest.fixture
def there(server, tmp_path, row_of):
    """Rows whose module is on the other machine as well."""
    site = tmp_path / "some_rows.py"
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{site.parent}" exec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    row_of("good")
    return Ssh("board", python=str(wrapper))


@pytest.fixture
def work(tmp_path, row_of):
    def make(session, *names, timeout=30.0, targets=()):
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "model.bin").write_bytes(b"x" * 1000)
        rows = {name: row_of(name) for name in names}
        rows = {name: Row(**{**_fields(row), "path": str(data)}) for name, row in rows.items()}
        request = Request((), (), folder, folder, folder, (1,), TINY, 1, timeout, targets)
        extra = {"session": session} if session else {}
        return Work(folder, rows, PREPARED, request, target="there", **extra)

    return make


def _fields(row):
    return {name: getattr(row, name) for name in row.__slots__}


def left(server):
    return sorted(path.name for path in server.there.iterdir())


def planned(*names, kind="throughput"):
    return [Cell(name, kind, 1, 0) for name in names]


def test_the_same_worker_runs_there_and_leaves_nothing(server, there, work, tmp_path):
    with opened(there, tmp_path, keep=False) as session:
        (folder,) = left(server)
        assert (server.there / folder).stat().st_mode & 0o777 == 0o700
        some = work(session, "good")
        cells = [*planned("good", kind="memory"), *planned("good", kind="latency")]
        answers, failures = measure(some, cells, lambda line: None)
        assert failures == {"good": []}
        memory, latency = (answer for _, answer in answers["good"])
        assert memory["memory"]["steady"]["rss"] > 1e6
        assert set(latency["latency"]) == {"8", "20", "128"}
        assert np.load(some.vectors("good")).shape == (len(TEXTS), 4)
        copied = server.there / folder / "in0" / "it" / "model.bin"
        assert copied.read_bytes() == b"x" * 1000
        assert session.describe(["numpy"])["packages"]["numpy"] == np.__version__
        assert session.state().keys() >= {"load", "temperature_c", "throttled"}
        assert session.weigh(["numpy"])["bytes"] > 1e6
    assert left(server) == []


def test_kept_only_when_asked(server, tmp_path):
    with opened(server.target, tmp_path, keep=True):
        pass
    (folder,) = left(server)
    assert (server.there / folder / "lib" / "asterisk" / "bench" / "worker.py").is_file()
    assert not (server.there / folder / "lib" / "asterisk" / "training").exists()


BAD = {
    "refuse": "ValueError: two lines",
    "crash": "crashed (SIGABRT)",
    "leave": "ended with status 3: its last words",
    "rubbish": "instead of a JSON object",
}


def test_a_bad_worker_there_is_one_line_and_the_others_go_on(there, work, tmp_path):
    with opened(there, tmp_path, keep=False) as session:
        some = work(session, *BAD, "good")
        answers, failures = measure(some, planned(*BAD, "good"), lambda line: None)
        for name, told in BAD.items():
            (line,) = failures[name]
            assert line.startswith(f"{name} throughput, 1 thread, process 1 on there: ")
            assert told in line
            assert "\n" not in line
        assert len(answers["good"]) == 1
        # One that hangs is stopped; a missing engine names its extra.
        some = work(session, "hang", "good", timeout=6.0)
        answers, failures = measure(some, planned("hang", "good"), lambda line: None)
        assert "gave no answer in 6 s and was stopped" in failures["hang"][0]
        assert len(answers["good"]) == 1
        assert not workers(session.home)
        row = Row("onnx", "o", "r", "m:f", "p", (), ("no-such-engine", "numpy"), 1)
        assert session.missing_package(row) == (
            "no-such-engine is not installed; install it with: pip install 'asterisk-edge[onnx]'"
        )


def workers(home):
    """Return the processes that run out of ``home``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"PYTHONPATH={home}/lib".encode() in environment:
            found.append(folder.name)
    return found


def test_a_connection_that_breaks_takes_the_worker_with_it(there, work, tmp_path):
    with opened(there, tmp_path, keep=False) as session:
        some = work(session, "hang")
        spec = json.dumps(
            {
                "module": "asterisk.bench.worker",
                "spec": some.spec(planned("hang")[0]),
                "timeout": 60,
            }
        )
        words = ["env", f"PYTHONPATH={session.home}/lib", there.python, "-P", "-m"]
        command = client.arguments(
            there, [*words, "asterisk.bench.process"], os.environ["ASTERISK_SSH_CONFIG"]
        )
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdin.write(spec.encode() + b"\n")
            process.stdin.flush()
            wait_for(lambda: len(workers(session.home)) >= 2)
            process.kill()
            wait_for(lambda: not workers(session.home))


def wait_for(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_a_server_that_dies_costs_its_cells_only(server, there, work, tmp_path):
    with opened(there, tmp_path, keep=False) as session:
        some = work(session, "good")
        first, _ = measure(some, planned("good"), lambda line: None)
        server.stop()
        began = time.monotonic()
        _, failures = measure(some, planned(*["good"] * 9), lambda line: None)
        assert time.monotonic() - began < 30
    assert len(first["good"]) == 1
    assert len(failures["good"]) == 9
    assert "Connection refused" in failures["good"][0]
    assert "the connection is lost" in failures["good"][8]


def test_a_dead_host_is_one_line_and_the_other_targets_go_on(work):
    from asterisk.bench.targets import LOCAL

    dead = Ssh("127.0.0.1", port=1)
    some = work(None, "good", targets=(dead, LOCAL))
    done = measure_targets(some, [some.rows["good"]], lambda line: None)
    (line,) = done.failed.values()
    assert list(done.failed) == [str(dead)]
    assert "Connection refused" in line
    assert [result.target for result in done.results] == ["local"]
    assert done.results[0].latency


def test_an_unknown_or_another_host_key_is_refused(server, tmp_path):
    other = (server.folder / "authorized").read_text("ascii")
    server.trust(other)
    with pytest.raises(TargetError, match="Host key verification failed"):  # noqa: SIM117
        with opened(server.target, tmp_path, keep=False):
            pass
    assert left(server) == []


def test_a_full_disk_there_is_one_line(server, there, work, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    size = "size=12m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", small], check=False).returncode:
        pytest.skip("this system does not let a file system be mounted")
    try:
        server.stop()
        server.start(small)
        with opened(there, tmp_path, keep=False) as session:
            some = work(session, "good", "refuse")
            big = tmp_path / "big"
            big.mkdir()
            (big / "model.bin").write_bytes(b"x" * (20 << 20))
            rows = {**some.rows, "good": Row(**{**_fields(some.rows["good"]), "path": str(big)})}
            some = Work(some.folder, rows, PREPARED, some.request, "there", session)
            _, failures = measure(some, planned("good", "refuse"), lambda line: None)
        assert failures["good"] == [
            "good throughput, 1 thread, process 1 on there: "
            "its disk is full (No space left on device)"
        ]
        assert "two lines" in failures["refuse"][0]
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", small], check=False)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 127", "ended with status 127"),
        ("echo asterisk-python 3 9 aarch64", "at least 3.11 is needed"),
        ("echo asterisk-python 3 11 armv7l", "64-bit system is needed"),
        ("echo hello", "there is no Python"),
        ("yes", "more than"),
    ],
)
def test_a_python_that_cannot_run_it_is_one_line(server, tmp_path, script, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(TargetError) as caught:  # noqa: SIM117
        with opened(Ssh("board", python=str(python)), tmp_path, keep=False):
            pass
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(server) == []


def test_a_cpu_that_is_not_there_is_one_line(server, tmp_path):
    target = Ssh("board", python=sys.executable, cpus=(0, 250))
    with pytest.raises(TargetError, match="there is no CPU 250"):  # noqa: SIM117
        with opened(target, tmp_path, keep=False):
            pass
    assert left(server) == []


def test_ctrl_c_keeps_what_was_measured_and_cleans_up(server, there, work):
    some = work(None, "good", "hang", targets=(there,))
    rows = list(some.rows.values())

    def interrupt(line):
        if "] hang" in line:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    done = measure_targets(some, rows, interrupt)
    assert some.interrupted
    assert done.failed["interrupted"] == "the rest was not measured"
    assert [result.name for result in done.results] == ["good", "hang"]
    assert left(server) == []


GOOD = {
    "phases": {"import": 1, "load": 2, "first": 3},
    "latency": {"8": [5, 6]},
    "parts": {"8": {"tokenize": [1]}},
    "passes": [7],
    "memory": {"steady": {"pss": None, "private": 1, "rss": 2, "peak": 3}},
    "shared": ["numpy"],
    "stability": 0.5,
}


def test_a_sound_answer_is_taken_as_it_is():
    assert ssh.check_measurement(GOOD, {"buckets": {"8": []}}) == GOOD


@pytest.mark.parametrize(
    "bad",
    [
        {"phases": {"import": 1}},
        {"phases": []},
        {"phases": {"import": -1, "load": 2, "first": 3}},
        {"latency": {"8": []}},
        {"latency": {"9": [1]}},
        {"latency": {"8": [1.5]}},
        {"latency": {"8": ["1"]}},
        {"passes": [0]},
        {"passes": None},
        {"parts": {"8": [1]}},
        {"parts": {"x": {"tokenize": [1]}}},
        {"memory": {"steady": {"pss": "1"}}},
        {"memory": {"steady": {}}},
        {"shared": [1]},
        {"stability": float("nan")},
        {"other": [[[[[[[1]]]]]]]},
    ],
)
def test_an_answer_that_cannot_be_computed_with_is_refused(bad):
    with pytest.raises(process.CellError):
        ssh.check_measurement({**GOOD, **bad}, {"buckets": {"8": []}})


def test_what_is_shown_is_printable():
    assert excerpt("a\x1b[31m\nb\u202e" + "c" * 999) == "a [31m b " + "c" * 291


def test_vectors_from_elsewhere_are_plain_arrays(tmp_path):
    path = tmp_path / "v.npy"
    np.save(path, np.ones((3, 4), "f4"))
    ssh.check_vectors(path, 3)
    whole = path.read_bytes()
    bad = {
        "rows": np.ones((2, 4), "f4"),
        "type": np.ones((3, 4), "f8"),
        "flat": np.ones(12, "f4"),
        "order": np.asfortranarray(np.ones((3, 4), "f4")),
        "objects": np.array([[object()]] * 3),
    }
    for array in bad.values():
        np.save(path, array, allow_pickle=True)
        with pytest.raises(process.CellError):
            ssh.check_vectors(path, 3)
    for data in (b"", whole[:9], whole[:-1], whole + b"x", b"PK\x03\x04" + whole):
        path.write_bytes(data)
        with pytest.raises(process.CellError):
            ssh.check_vectors(path, 3)
