"""What was measured on what. Standard library only.

``python -m asterisk.bench.machine`` answers those of `ANSWERS` that it is asked, as a worker does.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from asterisk.bench.worker import serve
from asterisk.common.process_memory import limit

UNKNOWN = "unavailable"
MISSING = "not installed"
FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),  # x86-64
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),  # AArch64
)
# Implementer and part of the main ID register, for what runs Linux on small boards and servers.
ARM_CORES = {
    "0x41:0xd03": "Cortex-A53", "0x41:0xd04": "Cortex-A35", "0x41:0xd05": "Cortex-A55",
    "0x41:0xd07": "Cortex-A57", "0x41:0xd08": "Cortex-A72", "0x41:0xd09": "Cortex-A73",
    "0x41:0xd0a": "Cortex-A75", "0x41:0xd0b": "Cortex-A76", "0x41:0xd0c": "Neoverse-N1",
    "0x41:0xd40": "Neoverse-V1", "0x41:0xd41": "Cortex-A78", "0x41:0xd49": "Neoverse-N2",
    "0x41:0xd4f": "Neoverse-V2",
}  # fmt: skip
TOOL_SECONDS = 5.0  # that a tool of the system may take
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
BUSY = 0.5  # load average above which times are doubtful
# Bits of a Raspberry Pi's word: what holds now and, 16 bits further up, has held since boot.
# Source: Raspberry Pi documentation, ``vcgencmd get_throttled``.
FLAGS = {0: "under-voltage", 1: "ARM frequency capped", 2: "throttled", 3: "soft temperature limit"}
SINCE_BOOT = 16
RISE = 10.0  # °C over a run, above which its beginning and its end are two machines
HOT = 80.0  # °C at which a Raspberry Pi begins to slow down
BASE = ("numpy",)  # what every installation has anyway
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
State = Mapping[str, Any]


def describe(packages: Iterable[str], root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine, the system and the installed versions of ``packages``.

    A board's serial number, which `/proc/cpuinfo` has too, is left out on purpose.
    """
    kib = _find(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    ram = str(int(kib) * 1024) if kib else _ask_mac("hw.memsize")
    quota = _read(root / "sys/fs/cgroup/cpu.max").split()  # of how many CPUs' time; max for all
    release = _read(root / "etc/os-release")
    return {
        **processor(root),
        "cores": len(cpus() or ()) or os.cpu_count(),
        "ram_bytes": int(ram) if ram.isdigit() else None,
        "page_bytes": os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None,
        "cgroup_limit_bytes": limit(root),
        "cgroup_cpus": int(quota[0]) / int(quota[1]) if quota[:1] != ["max"] and quota else None,
        "kernel": platform.release(),
        "system": platform.system(),
        "distribution": _find(r'^PRETTY_NAME="?([^"\n]+)', release) or UNKNOWN,
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
        "python": platform.python_version(),
        "packages": versions(packages),
        "git": _git(),
    }


def processor(root: Path = Path("/")) -> dict[str, Any]:
    """Return its name, board, revision, kinds of Arm cores and features, as read under ``root``."""
    cpuinfo = _read(root / "proc/cpuinfo")
    tree = root / "proc/device-tree"
    board = _read(tree / "model").strip("\0")
    cores = arm_cores(cpuinfo)
    name = board or _field(cpuinfo, "model name") or _ask_mac("machdep.cpu.brand_string")
    flags = set(_field(cpuinfo, "(?:flags|Features)").split())
    return {
        "cpu": name or ", ".join(cores) or UNKNOWN,
        "board": board or UNKNOWN,
        "compatible": [part for part in _read(tree / "compatible").split("\0") if part],
        "revision": _field(cpuinfo, "Revision") or UNKNOWN,
        "arm": cores,
        "isa": [name for name in FEATURES if name in flags],
    }


def arm_cores(cpuinfo: str) -> list[str]:
    """Return the kinds of Arm cores in order of appearance; numbers where the name is unknown."""
    found: dict[str, None] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        names = ("implementer", "part", "variant", "revision")
        maker, part, variant, revision = (_field(block, f"CPU {name}") for name in names)
        if maker and part:
            name = ARM_CORES.get(f"{maker}:{part}", f"{maker}:{part}")
            step = f" r{int(variant, 16)}p{revision}" if variant and revision else ""
            found[name + step] = None
    return list(found)


def state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what changes during a run: load, governor, frequencies, temperature, throttling."""
    cpus = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*"), key=lambda cpu: int(cpu.name[3:]))
    governors = [text for cpu in cpus if (text := _read(cpu / "cpufreq/scaling_governor"))]
    frequencies = _numbers(cpu / "cpufreq/scaling_cur_freq" for cpu in cpus)
    temperatures = _numbers(sorted(root.glob("sys/class/thermal/thermal_zone*/temp")))
    throttles = _numbers(cpu / "thermal_throttle/core_throttle_count" for cpu in cpus)
    load = _read(root / "proc/loadavg").split()
    elsewhere = (
        os.getloadavg() if platform.system() != "Linux" and hasattr(os, "getloadavg") else ()
    )
    # The firmware's own tool first: the kernel's driver resets the word when it polls it.
    is_pi = _read(root / "proc/device-tree/model").startswith("Raspberry Pi")
    answer = _ask("vcgencmd", "get_throttled") if is_pi else ""
    word = throttle_bits(answer or _read(root / FIRMWARE))
    return {
        "load": next(map(float, load or elsewhere), None),
        "governor": ", ".join(dict.fromkeys(governors)) or UNKNOWN,
        "frequency_khz": frequencies[0] if frequencies else None,
        "frequencies_khz": frequencies,
        "temperature_c": max(temperatures) / 1000 if temperatures else None,
        "throttled": UNKNOWN if word is None else hex(word),  # the firmware's word on a Pi
        "throttle_count": sum(throttles) if throttles else None,  # the x86 kernel's counters
    }


def throttle_bits(word: object) -> int | None:
    """Read ``throttled=0x50005``, ``0x50005`` or the kernel's ``50005``; None for anything else."""
    try:
        return int(str(word).strip().removeprefix("throttled="), 16)
    except ValueError:
        return None


def _flags(word: int) -> tuple[list[str], list[str]]:
    """Return the names of what holds now and of what has held since boot."""
    now = [name for bit, name in FLAGS.items() if word >> bit & 1]
    since = [name for bit, name in FLAGS.items() if word >> bit + SINCE_BOOT & 1]
    return now, since


def void_reasons(states: Sequence[State]) -> list[str]:
    """Return why times taken between the first and the last of ``states`` are void.

    Any flag that holds at one of them, and any "since boot" or count that came after the first.
    """
    words = [word for each in states if (word := throttle_bits(each.get("throttled"))) is not None]
    before = _flags(words[0])[1] if words else []
    found: list[str] = []
    for word in words:
        now, since = _flags(word)
        found += now + [name for name in since if name not in before]
    reasons = [f"throttled during the run: {name}" for name in dict.fromkeys(found)]
    counts = [count for each in states if (count := each.get("throttle_count")) is not None]
    if counts and max(counts) > counts[0]:
        times = max(counts) - counts[0]
        reasons.append(f"throttled during the run: {times} times by its temperature")
    return reasons


def warnings(before: State, after: State, between: Sequence[State] = ()) -> list[str]:
    """Return one line for each reason to doubt the times."""
    states = [before, *between, after]
    lines = []
    if before["load"] is not None and before["load"] > BUSY:
        lines.append(f"the machine was busy before the run (load {before['load']:.1f})")
    if before["governor"] not in (UNKNOWN, "performance"):
        lines.append(f"the frequency governor is {before['governor']!r}, not 'performance'")
    word = throttle_bits(before.get("throttled"))
    if word is not None and (since := _flags(word)[1]):
        lines.append(f"before the run, since boot, the firmware saw: {', '.join(since)}")
    degrees = [value for each in states if (value := each.get("temperature_c")) is not None]
    if degrees and max(degrees) - degrees[0] > RISE:
        lines.append(f"the temperature rose from {degrees[0]:.0f} to {max(degrees):.0f} °C")
    if degrees and max(degrees) >= HOT:
        lines.append(f"the machine was as hot as {max(degrees):.0f} °C")
    return lines + void_reasons(states)


def weigh(names: Iterable[str]) -> dict[str, int] | None:
    """Return ``bytes`` of the distributions and all they require, and ``base``: numpy's share.

    None if one of ``names`` is not installed; a requirement that is not counts nothing.
    """
    sizes: dict[str, int] = {}
    waiting = list(names)
    if missing(waiting):
        return None
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in sizes or missing([name]):
            continue
        package = distribution(name)
        paths = (Path(str(file.locate())) for file in package.files or ())
        sizes[key] = sum(path.stat().st_size for path in paths if path.is_file())
        waiting += required(package.requires or ())
    return {"bytes": sum(sizes.values()), "base": sum(sizes.get(name, 0) for name in BASE)}


def required(lines: Iterable[str]) -> list[str]:
    """Return the names in requirement lines, without those of extras."""
    return [it.group() for line in lines if "extra ==" not in line and (it := _NAME.match(line))]


def missing(names: Iterable[str]) -> list[str]:
    """Return the distributions that are not installed."""
    return [name for name in names if _version(name) == MISSING]


def cpus() -> list[int] | None:
    """Return the CPUs this process may run on; None where the system cannot bind to any."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each of ``packages``, or `MISSING`, sorted."""
    return {name: _version(name) for name in sorted(set(packages))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _git() -> dict[str, Any]:
    """Return the commit of the clone this package is in, and whether it has uncommitted changes."""
    here = str(Path(__file__).parent)
    commit = _run("git", "-C", here, "rev-parse", "HEAD")
    status = _run("git", "-C", here, "status", "--porcelain", "--", ".")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _ask(*command: str) -> str:
    """Return what a tool of the system prints; empty if it is missing, fails or takes too long."""
    return _run(*command, seconds=TOOL_SECONDS) or ""


def _ask_mac(name: str) -> str:
    return _ask("sysctl", "-n", name) if platform.system() == "Darwin" else ""


def _run(*command: str, seconds: float = 10) -> str | None:
    options: dict[str, Any] = {"text": True, "errors": "replace", "timeout": seconds}
    try:
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _field(cpuinfo: str, name: str) -> str:
    return _find(rf"^{name}\s*:\s*(.+)$", cpuinfo)


def _numbers(paths: Iterable[Path]) -> list[int]:
    return [int(text) for path in paths if (text := _read(path)).lstrip("-").isdigit()]


ANSWERS: Mapping[str, Callable[[Any], Any]] = {
    "machine": describe,
    "state": lambda _: state(),
    "cpus": lambda _: cpus(),
    "weigh": weigh,
    "missing": missing,
}


def _answer(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: ANSWERS[key](value) for key, value in spec.items()}


if __name__ == "__main__":
    sys.exit(serve(_answer))
