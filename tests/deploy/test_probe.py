"""What a machine tells about itself, and what is refused because of it."""

from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from asterisk.common.ssh import parse
from asterisk.deploy import DeployError, boards, service
from asterisk.deploy.boards import BOARDS
from asterisk.deploy.deploy import parse_answer
from asterisk.deploy.device import script as device_script

PI = {
    "system": "Linux",
    "machine": "aarch64",
    "implementation": "CPython",
    "glibc": "2.36",
    "model": "Raspberry Pi 4 Model B Rev 1.5",
    "prefix": "/home/pi/.local/share/asterisk",
    "bits": 64,
    "page_size": 4096,
    "memory": 4 << 30,
    "free": 8 << 30,
    "root": False,
    "sudo": True,
    "systemd": True,
    "writable": True,
    "busy": False,
    "active": False,
    "limits": True,
    "unit": "",
    "unit_port": 0,
    "serves": False,
    "python": "3.11",
    "dotprod": False,
    "clock": 0.0,
}
MANIFEST = {"glibc": "2.28", "page_size": 65536}


def there(**other):
    return boards.read_machine({**PI, "clock": time.time(), **other})


def probed(prefix, port=0, environment=None, *, host="127.0.0.1", unit="", script=None):
    asked = {"prefix": str(prefix), "host": host, "port": port, "sudo": True, "unit": str(unit)}
    data = json.dumps(asked).encode() + b"\n"
    words = [sys.executable, "-I", "-c", script or device_script("probe")]
    done = subprocess.run(words, input=data, capture_output=True, check=True, env=environment)
    return parse_answer(parse("ssh://x"), done.stdout)


def test_it_tells_the_truth_about_this_machine(tmp_path):
    found = boards.read_machine(probed(tmp_path / "not" / "there"))
    assert found.machine == platform.machine()
    assert found.python == ".".join(map(str, sys.version_info[:2]))
    assert found.page_size == os.sysconf("SC_PAGE_SIZE")
    assert found.glibc == platform.libc_ver()[1]
    assert found.memory == pytest.approx(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), rel=0.01
    )
    assert found.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert found.clock == pytest.approx(time.time(), abs=60)
    assert found.root == (os.geteuid() == 0)
    assert found.writable
    assert found.bits == 64
    assert "\n" not in str(found)


def test_a_home_and_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    assert not boards.read_machine(probed(tmp_path / "file" / "x")).writable
    message = probed("~/x", environment={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    assert message["prefix"] == str(tmp_path / "x")


def test_a_port_in_use_is_seen(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert probed(tmp_path, port)["busy"]
    assert not probed(tmp_path, port)["busy"]


def test_a_port_is_tried_at_the_address_that_is_asked_for(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.9", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert probed(tmp_path, port, host="127.0.0.9")["busy"]
        assert probed(tmp_path, port, host="0.0.0.0")["busy"]
        assert not probed(tmp_path, port)["busy"]


@pytest.mark.parametrize(
    ("controllers", "limits"), [("cpu memory pids", True), ("cpu pids", False)]
)
def test_whether_services_memory_is_bounded(tmp_path, controllers, limits):
    (tmp_path / "controllers").write_text(controllers + "\n")
    script = device_script("probe").replace(
        "/sys/fs/cgroup/cgroup.controllers", str(tmp_path / "controllers")
    )
    assert probed(tmp_path, script=script)["limits"] == limits
    notes = service.service_notes(there(limits=limits))
    assert [("MemoryMax has no effect" in note) for note in notes] == [True] * (not limits)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("{}/bin/asterisk-serve {}/current/artifact --host ::1 --port 8081", (True, 8081)),
        ("/elsewhere/bin/asterisk-serve x --port", (False, 0)),
        ("/usr/bin/python3 -m http.server --port 8081", (False, 0)),
        (None, (False, 0)),
    ],
)
def test_what_a_unit_serves_is_seen(tmp_path, command, message):
    unit = tmp_path / "asterisk.service"
    if command is not None:
        text = command.format(tmp_path / "prefix", tmp_path / "prefix")
        unit.write_text(f"[Service]\nType=notify\nExecStart={text}\n")
    found = boards.read_machine(probed(tmp_path / "prefix", unit=unit))
    assert (found.serves, found.unit_port) == message


def test_an_old_python_can_read_it_to_be_named():
    ast.parse(device_script("probe"), feature_version=(3, 5))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"bits": 32}, "32-bit"),
        ({"bits": 32, "machine": "armv7l"}, "install the 64-bit Raspberry Pi OS"),
        ({"machine": "x86_64"}, "a x86_64 machine: bundles are for aarch64"),
        ({"system": "Darwin"}, "Darwin"),
        ({"python": "3.12"}, "CPython 3.12 there: bundles are for 3.11"),
        ({"python": "3.9"}, "and 3.13 (Trixie)"),
        ({"implementation": "PyPy"}, "PyPy"),
        ({"glibc": ""}, "no glibc"),
        ({"prefix": "/home/a b/asterisk"}, "--prefix"),
        ({"prefix": "/home/../etc"}, "--prefix"),
        ({"prefix": "relative"}, "--prefix"),
    ],
)
def test_what_no_bundle_exists_for_is_refused(other, message):
    boards.refuse_machine(there())
    with pytest.raises(DeployError) as caught:
        boards.refuse_machine(there(**other))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"glibc": "2.27"}, "glibc 2.27 there, and 2.28 is needed"),
        ({"page_size": 1 << 17}, "pages of 128 KiB"),
        ({"free": 100 << 20}, "217 MB are needed and 105 MB are free"),
    ],
)
def test_a_bundle_that_would_not_run_there_is_refused(other, message):
    boards.refuse_bundle(there(), MANIFEST, 100_000_000)
    boards.refuse_bundle(there(glibc="2.100"), MANIFEST, 1)
    with pytest.raises(DeployError, match=message):
        boards.refuse_bundle(there(**other), MANIFEST, 100_000_000)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"sudo": False}, "no sudo without a password.*docs/deploying.md"),
        ({"systemd": False}, "no systemd"),
        ({"busy": True}, "port 8080 is in use"),
        ({"busy": True, "active": True, "unit_port": 8081}, "port 8080 is in use"),
    ],
)
def test_a_service_that_could_not_be_had_is_refused(other, message):
    service.refuse_service(there(), 8080)
    service.refuse_service(there(busy=True, active=True, unit_port=8080), 8080)
    with pytest.raises(DeployError, match=message):
        service.refuse_service(there(**other), 8080)


@pytest.mark.parametrize(
    ("other", "asked", "name", "message"),
    [
        ({}, None, "pi4", ""),
        ({"model": "Raspberry Pi 5 Model B Rev 1.0"}, None, "pi5", ""),
        ({}, "pi3", "pi3", "is treated as a Raspberry Pi 3"),
        ({"model": "Some Board"}, None, "pi4", "no known Raspberry Pi"),
        ({"model": "", "dotprod": True}, None, "pi5", "no known Raspberry Pi"),
        ({"model": "", "memory": 512 << 20}, None, "zero2w", "no known Raspberry Pi"),
        ({"model": ""}, "zero2w", "zero2w", "treated as a Raspberry Pi Zero 2 W"),
        ({"memory": 300 << 20}, None, "pi4", "only 300 MiB"),
        ({"clock": 0.0}, None, "pi4", "on which nothing depends"),
    ],
)
def test_which_board_it_is(other, asked, name, message):
    chosen, notes = boards.choose_board(there(**other), BOARDS[asked] if asked else None)
    assert chosen == BOARDS[name]
    assert message in " ".join(notes)
    assert bool(notes) == bool(message)


@pytest.mark.parametrize("name", PI)
def test_an_answer_that_makes_no_sense_is_refused(name):
    whole = {**PI, "clock": 1.0}
    without = {key: value for key, value in whole.items() if key != name}
    for bad in (without, {**whole, name: None}, {**whole, name: {}}, {**whole, "more": 1}):
        with pytest.raises(DeployError, match="makes no sense"):
            boards.read_machine(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"free": -1},
        {"bits": True},
        {"clock": float("nan")},
        {"python": 3.11},
        {"memory": 1 << 70},
    ],
)
def test_figures_out_of_range_are_refused(bad):
    with pytest.raises(DeployError, match="makes no sense"):
        there(**bad)


def test_what_is_shown_fits_one_line():
    shown = str(replace(there(), model=""))
    assert shown.startswith("no Raspberry Pi (aarch64), 64 bits, Python 3.11, glibc 2.36")
