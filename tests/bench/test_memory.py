"""Reading /proc, from texts recorded there."""

from __future__ import annotations

import sys

import pytest

from asterisk.bench import worker as memory

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


def process(root, pid, maps=MAPS):
    folder = root / str(pid)
    folder.mkdir()
    (folder / "maps").write_text(maps)
    (folder / "smaps_rollup").write_text(ROLLUP)
    (folder / "status").write_text(STATUS)
    return folder


def test_a_snapshot_is_in_bytes(tmp_path):
    assert memory.snapshot(process(tmp_path, 1)) == {
        "pss": 54321 * 1024,
        "private": 53440 * 1024,
        "rss": 61440 * 1024,
        "peak": 65000 * 1024,
    }


def test_what_the_system_does_not_tell_is_not_guessed(tmp_path):
    assert set(memory.snapshot(tmp_path / "gone").values()) == {None}


def test_sharers_are_packages_that_another_process_maps(tmp_path):
    process(tmp_path, 1)
    assert memory.sharers(tmp_path, 1) == []
    process(tmp_path, 2, MAPS.splitlines()[4])
    process(tmp_path, 3, MAPS.splitlines()[2])
    assert memory.sharers(tmp_path, 1) == ["engine"]


def test_parts_of_a_package_count_as_one():
    assert set(memory.libraries(MAPS).values()) == {"numpy", "engine"}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_this_process():
    found = memory.snapshot()
    assert 0 < found["private"] <= found["pss"] <= found["rss"] <= found["peak"]


def test_linux_needs_no_psutil(python):
    done = python(
        "import sys\nfrom asterisk.bench import memory\nmemory.snapshot()\n"
        "print('psutil' in sys.modules, 'resource' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def without_proc(tmp_path, monkeypatch):
    """A system that has no /proc, such as macOS."""
    monkeypatch.setattr(memory, "PROC", tmp_path)


def test_without_proc_psutil_gives_what_it_can(without_proc):
    psutil = pytest.importorskip("psutil")
    resource = pytest.importorskip("resource")
    found = memory.snapshot()
    assert found["pss"] is found["private"] is None
    assert abs(found["rss"] - psutil.Process().memory_info().rss) < 50_000_000
    assert found["peak"] == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_macos_counts_its_peak_in_bytes(without_proc, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak <= memory.snapshot()["peak"] < peak * 2


def test_without_psutil_the_rest_is_unknown(without_proc, monkeypatch):
    monkeypatch.setitem(memory.sys.modules, "psutil", None)
    monkeypatch.setitem(memory.sys.modules, "resource", None)
    assert set(memory.snapshot().values()) == {None}
