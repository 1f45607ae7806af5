"""The memory limit of the control group that this process is in.

Sources: `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst` of the Linux kernel,
cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_LIMIT = 1 << 60  # version 1 says "none" with the largest multiple of a page
_LARGEST = 1 << 20  # bytes of a file in /proc that are read
_DEEPEST = 64  # groups within groups
_LIMIT = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}


def limit(root: Path = Path("/")) -> int | None:
    """Return the lowest limit of this process's group and those above it, in bytes; None if none.

    ``root`` is where /proc and the mounts are looked for. Whatever cannot be read sets no limit.
    """
    found = [
        value
        for kind, folder, top in _groups(root)
        for place in _upwards(root / str(folder).lstrip("/"), root / str(top).lstrip("/"))
        if (value := _value(place / _LIMIT[kind])) is not None
    ]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Yield this process's groups that may limit memory: version, folder, topmost folder."""
    mounts = list(_mounts(root))
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        kind = "cgroup" if controllers else "cgroup2"
        for mounted, inner, top in mounts:
            if mounted == kind:
                # Within a container the mount may begin below what the kernel's path names.
                parts = PurePosixPath(path)
                below = parts.relative_to(inner) if parts.is_relative_to(inner) else None
                if below is not None and ".." not in below.parts:
                    yield kind, top / below, top


def _mounts(root: Path) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Yield the mounts that memory's limits may be under: version, inner root, where."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, *options) = front.split(), back.split() or [""]
        memory = len(options) > 1 and "memory" in options[1].split(",")
        if len(fields) > 4 and (kind == "cgroup2" or (kind == "cgroup" and memory)):
            yield kind, PurePosixPath(fields[3]), PurePosixPath(fields[4])


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    for _ in range(_DEEPEST):
        yield folder
        if folder in (top, folder.parent):
            return
        folder = folder.parent


def _value(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() and int(text[:20]) < NO_LIMIT else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""
