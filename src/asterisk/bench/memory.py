"""What a process occupies, from /proc; None wherever the system does not say.

Source: `Documentation/filesystems/proc.rst` of the Linux kernel. Where there is no /proc, RSS is
what psutil says, if it is installed, and its peak what getrusage says; the rest is unknown.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

PROC = Path("/proc")
KIB = 1_024
_LINE = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_LIBRARY = re.compile(r"\S*/site-packages/([^/.]+)\S*\.so[.\d]*$")
Snapshot = dict[str, int | None]


def snapshot(proc: Path | None = None) -> Snapshot:
    """Return bytes now: ``pss``, ``private``, ``rss`` and, since the start, ``peak`` RSS.

    Of this process, or of the one whose folder under /proc is ``proc``.
    """
    if proc is None:
        if not (PROC / "self/status").exists():
            return elsewhere()
        proc = PROC / "self"
    rollup, status = parse(_read(proc / "smaps_rollup")), parse(_read(proc / "status"))
    private = [rollup.get(name) for name in ("Private_Clean", "Private_Dirty")]
    return {
        "pss": rollup.get("Pss"),
        "private": None if None in private else sum(part or 0 for part in private),
        "rss": rollup.get("Rss"),
        "peak": status.get("VmHWM"),
    }


def elsewhere() -> Snapshot:
    """Return what a system without /proc tells of this process: its RSS and the peak of it."""
    found: Snapshot = {"pss": None, "private": None, "rss": None, "peak": None}
    usage = _optional("psutil")
    if usage is not None:
        told = usage.Process().memory_info()
        found["rss"] = told.rss
        found["peak"] = getattr(told, "peak_wset", None)  # Windows
    limits = _optional("resource")
    if limits is not None and found["peak"] is None:
        peak = limits.getrusage(limits.RUSAGE_SELF).ru_maxrss
        found["peak"] = peak * (1 if sys.platform == "darwin" else KIB)
    return found


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None


def parse(text: str) -> dict[str, int]:
    """Return the values of ``Name:  123 kB`` lines, in bytes."""
    return {name: int(value) * KIB for name, value in _LINE.findall(text)}


def sharers(proc: Path = PROC, own: int | None = None) -> list[str]:
    """Return the installed packages of which this and another process map the same library.

    Its pages are divided among the processes in PSS, which then understates what this one would
    occupy alone. Processes of other users cannot be seen.
    """
    pid = os.getpid() if own is None else own
    ours = libraries(_read(proc / str(pid) / "maps"))
    shared: dict[str, str] = {}
    for folder in proc.glob("[0-9]*"):
        if folder.name != str(pid):
            theirs = libraries(_read(folder / "maps"))
            shared |= {path: package for path, package in ours.items() if path in theirs}
    return sorted(set(shared.values()))


def libraries(maps: str) -> dict[str, str]:
    """Return the package of each shared object under ``site-packages`` in a ``maps`` file's text.

    By its path; of ``numpy.libs`` and the like, the package is the part before the dot.
    """
    lines = (line.split(maxsplit=5) for line in maps.splitlines())
    found = (_LIBRARY.fullmatch(line[5].strip()) for line in lines if len(line) == 6)
    return {match.group(): match.group(1) for match in found if match}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
