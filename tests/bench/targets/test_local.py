"""Workers that stay on chosen CPUs of this machine."""

from __future__ import annotations

import os

import pytest

from asterisk.bench import targets as local
from asterisk.bench.targets import LocalSession, TargetError, opened, parse
from asterisk.cli.bench import main

ASKING = """
import os

class Encoder:
    def encode(self, texts):
        raise ValueError(f"on {sorted(os.sched_getaffinity(0))}")

def asking(path, threads):
    return Encoder()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_a_worker_runs_on_the_cpus_that_were_named(tmp_path, monkeypatch):
    from asterisk.bench.process import CellError

    (tmp_path / "asking_rows.py").write_text(ASKING, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    last = max(os.sched_getaffinity(0))
    spec = {"kind": "throughput", "opener": "asking_rows:asking", "path": ".", "modules": []}
    spec |= {"threads": 1, "first": "x"}
    before = os.sched_getaffinity(0)
    with (
        opened(parse(f"local:cpus={last}"), tmp_path, keep=False) as here,
        pytest.raises(CellError, match=rf"on \[{last}\]"),
    ):
        here.ask("asterisk.bench.worker", spec, 60)
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_is_not_here_is_one_line():
    with pytest.raises(TargetError, match=r"there is no CPU 250; there are: \d"):
        LocalSession(parse("local:cpus=250"))


def test_a_system_that_binds_no_process_says_so(monkeypatch):
    monkeypatch.setattr(local, "available_cpus", lambda: None)
    with pytest.raises(TargetError, match="cannot keep a process on chosen CPUs"):
        LocalSession(parse("local:cpus=0"))
    LocalSession(parse("local:threads=2"))


def test_a_wrong_target_is_refused_before_anything_is_done(capsys):
    assert main(["--target", "ssh://-oProxyCommand=x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
