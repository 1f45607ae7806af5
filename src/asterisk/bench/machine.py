"""What was measured on what: everything a reader needs to judge a number. Standard library only."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

UNKNOWN = "unavailable"
FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),  # x86-64
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),  # AArch64
)
BUSY = 0.5  # load average above which times are doubtful
_FREQUENCY = "scaling_cur_freq"


def describe(packages: Iterable[str], root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine, the system and the installed versions of ``packages``."""
    cpuinfo = _read(root / "proc/cpuinfo")
    return {
        "cpu": _cpu(cpuinfo, root),
        "isa": [name for name in FEATURES if name in _flags(cpuinfo)],
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "ram_bytes": _memory(root),
        "cgroup_limit_bytes": _limit(root),
        "kernel": platform.release(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in sorted(set(packages))},
        "git": _git(),
    }


def state(root: Path = Path("/")) -> dict[str, Any]:
    """Return what changes during a run: load, governor, frequency, temperature, throttling."""
    policy = root / "sys/devices/system/cpu/cpu0/cpufreq"
    load = _read(root / "proc/loadavg").split()
    hottest = [
        int(text)
        for zone in sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))
        if (text := _read(zone)).lstrip("-").isdigit()
    ]
    frequency = _read(policy / _FREQUENCY)
    return {
        "load": float(load[0]) if load else None,
        "governor": _read(policy / "scaling_governor") or UNKNOWN,
        "frequency_khz": int(frequency) if frequency.isdigit() else None,
        "temperature_c": max(hottest) / 1000 if hottest else None,
        "throttled": _read(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or UNKNOWN,
    }


def warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason to doubt the times."""
    told = []
    if before["load"] is not None and before["load"] > BUSY:
        told.append(f"the machine was busy before the run (load {before['load']:.1f})")
    if before["governor"] not in (UNKNOWN, "performance"):
        told.append(f"the frequency governor is {before['governor']!r}, not 'performance'")
    if after["throttled"] not in (UNKNOWN, "0", "0x0"):
        told.append(f"the firmware reports throttling ({after['throttled']})")
    return told


def _cpu(cpuinfo: str, root: Path) -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    board = _read(root / "proc/device-tree/model").strip("\0")
    return board or (named.group(1).strip() if named else UNKNOWN)


def _flags(cpuinfo: str) -> set[str]:
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return set(line.group(1).split()) if line else set()


def _memory(root: Path) -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(total.group(1)) * 1024 if total else None


def _limit(root: Path) -> int | None:
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(root / name)
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


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


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
