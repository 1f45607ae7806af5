"""What was measured on what: everything a reader needs to judge a number. Standard library only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asterisk.bench import processor, throttling
from asterisk.bench.processor import UNKNOWN, read

BUSY = 0.5  # load average above which times are doubtful
State = Mapping[str, Any]
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def describe(packages: Iterable[str], root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine, the system and the installed versions of ``packages``."""
    return {
        **processor.describe(root),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "ram_bytes": _memory(root),
        "page_bytes": os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None,
        "cgroup_limit_bytes": _limit(root),
        "cgroup_cpus": _quota(root),
        "kernel": platform.release(),
        "system": platform.system(),
        "distribution": _distribution(root),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in sorted(set(packages))},
        "git": _git(),
    }


def state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what changes during a run: load, governor, frequencies, temperature, throttling.

    ``throttled`` is the firmware's word of a Raspberry Pi (see `asterisk.bench.throttling`),
    ``throttle_count`` the sum of the x86 kernel's counters.
    """
    cpus = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*"), key=lambda cpu: int(cpu.name[3:]))
    governors = [text for cpu in cpus if (text := read(cpu / "cpufreq/scaling_governor"))]
    frequencies = _numbers(cpu / "cpufreq/scaling_cur_freq" for cpu in cpus)
    hottest = _numbers(sorted(root.glob("sys/class/thermal/thermal_zone*/temp")))
    throttles = _numbers(cpu / "thermal_throttle/core_throttle_count" for cpu in cpus)
    return {
        "load": _load(root),
        "governor": ", ".join(dict.fromkeys(governors)) or UNKNOWN,
        "frequency_khz": frequencies[0] if frequencies else None,
        "frequencies_khz": frequencies,
        "temperature_c": max(hottest) / 1000 if hottest else None,
        "throttled": _throttled(root),
        "throttle_count": sum(throttles) if throttles else None,
    }


def warnings(before: State, after: State, between: Sequence[State] = ()) -> list[str]:
    """Return one line for each reason to doubt the times."""
    told = []
    if before["load"] is not None and before["load"] > BUSY:
        told.append(f"the machine was busy before the run (load {before['load']:.1f})")
    if before["governor"] not in (UNKNOWN, "performance"):
        told.append(f"the frequency governor is {before['governor']!r}, not 'performance'")
    states = [before, *between, after]
    return told + throttling.warnings(states) + throttling.invalid(states)


def _load(root: Path) -> float | None:
    told = read(root / "proc/loadavg").split()
    if told:
        return float(told[0])
    if platform.system() == "Linux" or not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0]


def _throttled(root: Path) -> str:
    """Ask the firmware's own tool first: the kernel's driver has it forget at every poll of its."""
    told = processor.ask("vcgencmd", "get_throttled") if _is_pi(root) else ""
    word = throttling.bits(told or read(root / FIRMWARE) or UNKNOWN)
    return UNKNOWN if word is None else hex(word)


def _is_pi(root: Path) -> bool:
    return read(root / "proc/device-tree/model").startswith("Raspberry Pi")


def _numbers(paths: Iterable[Path]) -> list[int]:
    return [int(text) for path in paths if (text := read(path)).lstrip("-").isdigit()]


def _memory(root: Path) -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", read(root / "proc/meminfo"), re.MULTILINE)
    if total:
        return int(total.group(1)) * 1024
    told = processor.ask("sysctl", "-n", "hw.memsize") if platform.system() == "Darwin" else ""
    return int(told) if told.isdigit() else None


def _limit(root: Path) -> int | None:
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = read(root / name)
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def _quota(root: Path) -> float | None:
    """Return how many CPUs' time the control group may take; None for all."""
    told = read(root / "sys/fs/cgroup/cpu.max").split()
    return int(told[0]) / int(told[1]) if len(told) == 2 and told[0].isdigit() else None


def _distribution(root: Path) -> str:
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)', read(root / "etc/os-release"), re.MULTILINE)
    return named.group(1) if named else UNKNOWN


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git() -> dict[str, Any]:
    """Return the commit of the clone this package is in, and whether it has uncommitted changes."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=here,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ".")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
