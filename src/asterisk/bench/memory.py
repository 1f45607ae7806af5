"""What a process occupies, from /proc; None wherever the system does not say. Linux only.

Source: `Documentation/filesystems/proc.rst` of the Linux kernel.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PROC = Path("/proc")
KIB = 1_024
_LINE = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)
_LIBRARY = re.compile(r"\S*/site-packages/\S+\.so[.\d]*$")
Snapshot = dict[str, int | None]


def snapshot(proc: Path = PROC / "self") -> Snapshot:
    """Return bytes now: ``pss``, ``private``, ``rss`` and, since the start, ``peak`` RSS."""
    rollup, status = parse(_read(proc / "smaps_rollup")), parse(_read(proc / "status"))
    private = [rollup.get(name) for name in ("Private_Clean", "Private_Dirty")]
    return {
        "pss": rollup.get("Pss"),
        "private": None if None in private else sum(part or 0 for part in private),
        "rss": rollup.get("Rss"),
        "peak": status.get("VmHWM"),
    }


def parse(text: str) -> dict[str, int]:
    """Return the values of ``Name:  123 kB`` lines, in bytes."""
    return {name: int(value) * KIB for name, value in _LINE.findall(text)}


def sharers(proc: Path = PROC, own: int | None = None) -> list[str]:
    """Return the libraries of installed packages that this and another process both map.

    Their pages are divided among the processes in PSS, which then understates what this one would
    occupy alone. Processes of other users cannot be seen.
    """
    pid = os.getpid() if own is None else own
    ours = libraries(_read(proc / str(pid) / "maps"))
    shared: set[str] = set()
    for folder in proc.glob("[0-9]*"):
        if folder.name != str(pid):
            shared |= ours & libraries(_read(folder / "maps"))
    return sorted(Path(path).name for path in shared)


def libraries(maps: str) -> set[str]:
    """Return the paths of shared objects under ``site-packages`` in a ``maps`` file's text."""
    lines = (line.split(maxsplit=5) for line in maps.splitlines())
    return {line[5] for line in lines if len(line) == 6 and _LIBRARY.fullmatch(line[5])}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
