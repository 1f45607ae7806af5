"""The machine, its packages, and reasons to doubt it: made-up roots, as each board has them."""

from __future__ import annotations

import json
import os
import sys

import pytest

from asterisk.bench import machine

A53 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp"
SERIAL = "10000000deadbeef"


def cpuinfo(part, revision, features, code):
    """As the arm64 kernels of Raspberry Pi OS print it."""
    core = f"""\
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: {revision}
"""
    cores = "\n".join(f"processor\t: {number}\n{core}" for number in range(4))
    return f"{cores}\nRevision\t: {code}\nSerial\t\t: {SERIAL}\nModel\t\t: a board\n"


BOARDS = {
    "Raspberry Pi 3 Model B Plus Rev 1.3": (
        ("0xd03", 4, A53, "a020d3"),
        "raspberrypi,3-model-b-plus\0brcm,bcm2837\0",
        {"arm": ["Cortex-A53 r0p4"], "isa": ["asimd"], "revision": "a020d3"},
    ),
    "Raspberry Pi 4 Model B Rev 1.4": (
        ("0xd08", 3, A53, "c03114"),
        "raspberrypi,4-model-b\0brcm,bcm2711\0",
        {"arm": ["Cortex-A72 r0p3"], "isa": ["asimd"], "revision": "c03114"},
    ),
    "Raspberry Pi 5 Model B Rev 1.0": (
        ("0xd0b", 1, A76, "c04170"),
        "raspberrypi,5-model-b\0brcm,bcm2712\0",
        {
            "arm": ["Cortex-A76 r0p1"],
            "isa": ["asimd", "asimdhp", "asimddp"],
            "revision": "c04170",
        },
    ),
}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def board_at(root, name, throttled=""):
    core, compatible, expected = BOARDS[name]
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": cpuinfo(*core),
        "proc/device-tree/model": f"{name}\0",
        "proc/device-tree/compatible": compatible,
        "proc/meminfo": "MemTotal:        8000000 kB\n",
        "proc/loadavg": "0.25 0.10 0.05 1/150 999\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "sys/class/thermal/thermal_zone0/temp": "51540\n",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1073741824\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
    }
    for number, khz in enumerate((600_000, 1_400_000, 1_400_000, 600_000)):
        files[f"{cpu}/cpu{number}/cpufreq/scaling_governor"] = "ondemand\n"
        files[f"{cpu}/cpu{number}/cpufreq/scaling_cur_freq"] = f"{khz}\n"
    if throttled:
        files[machine.FIRMWARE] = throttled
    write(root, files)
    return expected


@pytest.fixture
def no_tools(tmp_path, monkeypatch):
    """A PATH on which only what a test writes into the folder is found."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))

    def tool(name, script):
        (tools / name).write_text(f"#!{sys.executable}\n{script}")
        (tools / name).chmod(0o755)

    return tool


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_described(tmp_path, no_tools, name):
    expected = board_at(tmp_path, name)
    found = machine.describe(["numpy", "no-such-package"], tmp_path)
    assert found["cpu"] == found["board"] == name
    assert found["compatible"] == BOARDS[name][1].strip("\0").split("\0")
    assert {key: found[key] for key in expected} == expected
    assert found["ram_bytes"] == 8_000_000 * 1024
    assert found["cgroup_limit_bytes"] == 1 << 30
    assert found["cgroup_cpus"] == 1.5
    assert found["page_bytes"] == os.sysconf("SC_PAGE_SIZE")
    assert found["distribution"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["packages"]["no-such-package"] == "not installed"
    assert SERIAL not in json.dumps(found)


def test_a_board_s_state(tmp_path, no_tools):
    board_at(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", throttled="50005\n")
    assert machine.state(tmp_path) == {
        "load": 0.25,
        "governor": "ondemand",
        "frequency_khz": 600_000,
        "frequencies_khz": [600_000, 1_400_000, 1_400_000, 600_000],
        "temperature_c": 51.54,
        "throttled": "0x50005",
        "throttle_count": None,
    }


def test_the_firmware_s_own_tool_is_asked_first_and_on_a_pi_only(tmp_path, no_tools):
    no_tools("vcgencmd", "import sys; print('throttled=0x80008' if sys.argv[1:] else '')")
    board_at(tmp_path, "Raspberry Pi 5 Model B Rev 1.0", throttled="0\n")
    assert machine.state(tmp_path)["throttled"] == "0x80008"
    (tmp_path / "proc/device-tree/model").write_text("Some other board\0")
    assert machine.state(tmp_path)["throttled"] == "0x0"


@pytest.mark.parametrize(
    "script", ["import time; time.sleep(60)", "print('VCHI initialization failed')", "exit(1)"]
)
def test_a_tool_that_hangs_or_fails_is_no_answer(tmp_path, no_tools, monkeypatch, script):
    monkeypatch.setattr(machine, "TOOL_SECONDS", 0.5)
    no_tools("vcgencmd", script)
    board_at(tmp_path, "Raspberry Pi 3 Model B Plus Rev 1.3")
    assert machine.state(tmp_path)["throttled"] == "unavailable"


def test_a_mac(tmp_path, no_tools, monkeypatch):
    no_tools(
        "sysctl",
        "import sys; told = {'machdep.cpu.brand_string': 'Apple M2', 'hw.memsize': '17179869184'}\n"
        "print(told[sys.argv[2]])",
    )
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (1.5, 1.0, 0.5), raising=False)
    found = machine.describe([], tmp_path)
    assert (found["cpu"], found["ram_bytes"]) == ("Apple M2", 16 << 30)
    assert found["cores"] == os.cpu_count()
    state = machine.state(tmp_path)
    assert state["load"] == 1.5
    assert state["governor"] == state["throttled"] == "unavailable"
    assert machine.warnings(state, state) == ["the machine was busy before the run (load 1.5)"]


def test_a_container_that_shows_no_sys(tmp_path, no_tools):
    write(tmp_path, {"proc/cpuinfo": "model name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 fma\n"})
    found = machine.describe([], tmp_path) | machine.state(tmp_path)
    assert (found["cpu"], found["isa"]) == ("Some CPU @ 3 GHz", ["avx2", "fma"])
    assert found["board"] == found["governor"] == found["throttled"] == "unavailable"
    assert found["compatible"] == found["arm"] == found["frequencies_khz"] == []
    assert found["cgroup_cpus"] is found["temperature_c"] is found["throttle_count"] is None


def test_an_arm_server_is_named_by_its_cores(tmp_path, no_tools):
    write(tmp_path, {"proc/cpuinfo": "CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"})
    assert machine.describe([], tmp_path)["cpu"] == "Neoverse-N1"
    assert machine.arm_cores("CPU implementer : 0x99\nCPU part : 0x1\n") == ["0x99:0x1"]


def test_two_kinds_of_cores_and_of_governors(tmp_path, no_tools):
    block = "CPU implementer : 0x41\nCPU part : {}\n"
    assert machine.arm_cores("\n".join(map(block.format, ("0xd05", "0xd05", "0xd0a")))) == [
        "Cortex-A55",
        "Cortex-A75",
    ]
    for number, governor in ((2, "performance"), (10, "powersave")):
        name = f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor"
        write(tmp_path, {name: governor})
    assert machine.state(tmp_path)["governor"] == "performance, powersave"


def test_a_system_that_tells_nothing_is_no_error(tmp_path, no_tools):
    found = machine.describe([], tmp_path) | machine.state(tmp_path)
    assert found["cpu"] == found["governor"] == "unavailable"
    assert found["load"] is found["ram_bytes"] is found["temperature_c"] is None


def test_doubts_are_said():
    quiet = {"load": 0.1, "governor": "performance", "throttled": "0x0"}
    assert machine.warnings(quiet, quiet) == []
    busy = {"load": 3.0, "governor": "powersave", "throttled": "0x50000"}
    assert machine.warnings(busy, busy) == [
        "the machine was busy before the run (load 3.0)",
        "the frequency governor is 'powersave', not 'performance'",
        "before the run, since boot, the firmware saw: under-voltage, throttled",
    ]
    cool, warm, hot = ({**quiet, "temperature_c": degrees} for degrees in (45.0, 52.0, 81.0))
    assert machine.warnings(cool, warm) == []
    assert machine.warnings(cool, warm, [hot]) == [
        "the temperature rose from 45 to 81 °C",
        "the machine was as hot as 81 °C",
    ]


def said(*words):
    return [{"throttled": word} for word in words]


@pytest.mark.parametrize(
    ("states", "reasons"),
    [
        (said("0x0", "0x0"), []),
        (said("unavailable", "unavailable"), []),
        (said("0x50000", "0x50000"), []),  # long ago
        (said("0x50000", "0x0", "0x0"), []),
        (said("0x0", "0x40000"), ["throttled"]),  # between two readings
        (said("0x0", "0x20002", "0x20000"), ["ARM frequency capped"]),
        (said("0x50000", "0x50000", "0xd0000"), ["soft temperature limit"]),
        (said("0x50005", "0x50005"), ["under-voltage", "throttled"]),  # all the time
        (said("0x0", "unavailable", "0x80008"), ["soft temperature limit"]),
    ],
)
def test_what_makes_times_void(states, reasons):
    assert machine.void_reasons(states) == [f"throttled during the run: {name}" for name in reasons]


def test_the_x86_kernel_s_counter():
    states = [{"throttle_count": count} for count in (7, 7, 9)]
    assert machine.void_reasons(states) == ["throttled during the run: 2 times by its temperature"]
    assert machine.void_reasons(states[:2]) == []


def test_a_counter_is_the_sum_over_cores(tmp_path, no_tools):
    for number in range(2):
        counter = f"sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count"
        write(tmp_path, {counter: "3\n"})
    assert machine.state(tmp_path)["throttle_count"] == 6


@pytest.mark.parametrize("word", ["throttled=0x50005", "0x50005", "50005\n"])
def test_a_word_is_read_however_it_is_written(word):
    assert machine.throttle_bits(word) == 0x50005
    assert machine.throttle_bits("unavailable") is None


def test_installed_size_counts_what_is_required_once():
    alone, twice = machine.weigh(["numpy"]), machine.weigh(["onnxruntime", "numpy"])
    assert alone["bytes"] == alone["base"] == twice["base"] > 1_000_000
    assert twice["bytes"] > twice["base"]
    assert machine.weigh(["no-such-package"]) is None


def test_requirements_of_extras_do_not_count():
    lines = ["numpy>=1.21", "protobuf", 'torch; extra == "all"', "a.b-c (>=2) ; os_name == 'x'"]
    assert machine.required(lines) == ["numpy", "protobuf", "a.b-c"]
