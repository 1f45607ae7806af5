"""What was measured on what: everything a reader needs to judge a number. Standard library only.

``python -m asterisk.bench.machine`` answers questions about the machine that it runs on, asked as
a worker is: those of `ANSWERS`, each with its argument.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from asterisk.bench.worker import serve

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
FLAGS = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_BOOT = 16
RISE = 10.0  # °C over a run, above which its beginning and its end are two machines
HOT = 80.0  # °C at which a Raspberry Pi begins to slow down
BASE = ("numpy",)  # what every installation has anyway
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
State = Mapping[str, Any]


def describe(packages: Iterable[str], root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine, the system and the installed versions of ``packages``.

    A board's serial number, which `/proc/cpuinfo` has too, is left out on purpose.
    """
    return {
        **processor(root),
        "cores": len(cpus() or ()) or os.cpu_count(),
        "ram_bytes": _memory(root),
        "page_bytes": os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None,
        "cgroup_limit_bytes": _memory_limit(root),
        "cgroup_cpus": _cpu_quota(root),
        "kernel": platform.release(),
        "system": platform.system(),
        "distribution": _find(r'^PRETTY_NAME="?([^"\n]+)', root / "etc/os-release") or UNKNOWN,
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
    brand = _ask("sysctl", "-n", "machdep.cpu.brand_string") if _is_mac() else ""
    flags = set(_field(cpuinfo, "(?:flags|Features)").split())
    return {
        "cpu": board or _field(cpuinfo, "model name") or brand or ", ".join(cores) or UNKNOWN,
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
        maker, part = _field(block, "CPU implementer"), _field(block, "CPU part")
        if maker and part:
            name = ARM_CORES.get(f"{maker}:{part}", f"{maker}:{part}")
            variant, revision = _field(block, "CPU variant"), _field(block, "CPU revision")
            if variant and revision:
                name += f" r{int(variant, 16)}p{revision}"
            found[name] = None
    return list(found)


def state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what changes during a run: load, governor, frequencies, temperature, throttling.

    ``throttled`` is the firmware's word of a Raspberry Pi, ``throttle_count`` the sum of the x86
    kernel's counters.
    """
    cpus = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*"), key=lambda cpu: int(cpu.name[3:]))
    governors = [text for cpu in cpus if (text := _read(cpu / "cpufreq/scaling_governor"))]
    frequencies = _numbers(cpu / "cpufreq/scaling_cur_freq" for cpu in cpus)
    temperatures = _numbers(sorted(root.glob("sys/class/thermal/thermal_zone*/temp")))
    throttles = _numbers(cpu / "thermal_throttle/core_throttle_count" for cpu in cpus)
    return {
        "load": _load(root),
        "governor": ", ".join(dict.fromkeys(governors)) or UNKNOWN,
        "frequency_khz": frequencies[0] if frequencies else None,
        "frequencies_khz": frequencies,
        "temperature_c": max(temperatures) / 1000 if temperatures else None,
        "throttled": _throttled(root),
        "throttle_count": sum(throttles) if throttles else None,
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

    Any flag that holds at one of the readings, and any "since boot" that appeared after the first
    of them: the machine was slowed down between two readings. The same for the x86 kernel's
    counter.
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

    None if one of ``names`` is not installed. A requirement that is not installed, because its
    condition does not hold here, counts nothing.
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
        sizes[key] = _size(package)
        waiting += required(package.requires or ())
    return {"bytes": sum(sizes.values()), "base": sum(sizes.get(name, 0) for name in BASE)}


def required(lines: Iterable[str]) -> list[str]:
    """Return the names in requirement lines, without those of extras."""
    matches = (_REQUIREMENT.match(line) for line in lines if "extra ==" not in line)
    return [match.group() for match in matches if match]


def missing(names: Iterable[str]) -> list[str]:
    """Return the distributions that are not installed."""
    return [name for name in names if _version(name) == MISSING]


def cpus() -> list[int] | None:
    """Return the CPUs this process may run on; None where the system cannot bind to any."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _size(package: Distribution) -> int:
    paths = (Path(str(file.locate())) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def _load(root: Path) -> float | None:
    words = _read(root / "proc/loadavg").split()
    if words:
        return float(words[0])
    if platform.system() == "Linux" or not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0]


def _throttled(root: Path) -> str:
    """Ask the firmware's own tool first: the kernel's driver resets the word when it polls it."""
    is_pi = _read(root / "proc/device-tree/model").startswith("Raspberry Pi")
    answer = _ask("vcgencmd", "get_throttled") if is_pi else ""
    word = throttle_bits(answer or _read(root / FIRMWARE) or UNKNOWN)
    return UNKNOWN if word is None else hex(word)


def _memory(root: Path) -> int | None:
    kib = _find(r"^MemTotal:\s+(\d+) kB", root / "proc/meminfo")
    if kib:
        return int(kib) * 1024
    size = _ask("sysctl", "-n", "hw.memsize") if _is_mac() else ""
    return int(size) if size.isdigit() else None


def _memory_limit(root: Path) -> int | None:
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(root / name)
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def _cpu_quota(root: Path) -> float | None:
    """Return how many CPUs' time the control group may take; None for all."""
    words = _read(root / "sys/fs/cgroup/cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


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
    commit = _run(["git", "-C", here, "rev-parse", "HEAD"], 10)
    status = _run(["git", "-C", here, "status", "--porcelain", "--", "."], 10)
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _ask(*command: str) -> str:
    """Return what a tool of the system prints; empty if it is missing, fails or takes too long."""
    tool = shutil.which(command[0])
    return (tool and _run([tool, *command[1:]], TOOL_SECONDS)) or ""


def _run(command: Sequence[str], seconds: float) -> str | None:
    try:
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _find(pattern: str, path: Path) -> str:
    found = re.search(pattern, _read(path), re.MULTILINE)
    return found.group(1) if found else ""


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _numbers(paths: Iterable[Path]) -> list[int]:
    return [int(text) for path in paths if (text := _read(path)).lstrip("-").isdigit()]


def _is_mac() -> bool:
    return platform.system() == "Darwin"


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
