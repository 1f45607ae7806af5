"""The machine, its packages, and reasons to doubt it."""

from __future__ import annotations

import json

from asterisk.bench import installed, machine

CPUINFO = "processor\t: 0\nFeatures\t: fp asimd crc32 asimddp\n\nprocessor\t: 1\n"


def test_a_board_is_described(tmp_path):
    for name, text in {
        "proc/cpuinfo": CPUINFO,
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/meminfo": "MemTotal:        8000000 kB\n",
        "sys/fs/cgroup/memory.max": "1073741824\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = machine.describe(["numpy", "no-such-package"], tmp_path)
    assert found["cpu"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["isa"] == ["asimd", "asimddp"]
    assert found["ram_bytes"] == 8_000_000 * 1024
    assert found["cgroup_limit_bytes"] == 1 << 30
    assert found["packages"]["no-such-package"] == "not installed"
    assert json.dumps(found)


def test_a_system_that_tells_nothing_is_no_error(tmp_path):
    found = machine.describe([], tmp_path) | machine.state(tmp_path)
    assert found["cpu"] == found["governor"] == "unavailable"
    assert found["load"] is found["ram_bytes"] is found["temperature_c"] is None


def test_doubts_are_said():
    quiet = {"load": 0.1, "governor": "performance", "throttled": "0x0"}
    assert machine.warnings(quiet, quiet) == []
    busy = {"load": 3.0, "governor": "powersave", "throttled": "0x50000"}
    assert len(machine.warnings(busy, busy)) == 3


def test_installed_size_counts_what_is_required_once():
    alone, twice = installed.weigh(["numpy"]), installed.weigh(["onnxruntime", "numpy"])
    assert alone["bytes"] == alone["base"] == twice["base"] > 1_000_000
    assert twice["bytes"] > twice["base"]
    assert installed.weigh(["no-such-package"]) is None


def test_requirements_of_extras_do_not_count():
    lines = ["numpy>=1.21", "protobuf", 'torch; extra == "all"', "a.b-c (>=2) ; os_name == 'x'"]
    assert installed.required(lines) == ["numpy", "protobuf", "a.b-c"]
