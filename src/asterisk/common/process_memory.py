"""The memory of this process: what it occupies, what it may occupy, what it can give back.

Sources: proc_pid_smaps(5), proc_pid_maps(5), madvise(2), malloc_trim(3), cgroups(7),
proc_pid_mountinfo(5), the kernel's `cgroup-v2.rst` and `cgroup-v1/memory.rst`. Linux only.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import cache
from mmap import PAGESIZE
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ctypes

KIB = 1 << 10
MOST_MAPPINGS = 20_000  # Linux allows a process 65,530 (vm.max_map_count); others need some
ROLLUP = Path("/proc/self/smaps_rollup")
_SMAPS = Path("/proc/self/smaps")
_MAPS = Path("/proc/self/maps")
_RANDOM = 1  # advice: MADV_RANDOM
_DONTNEED = 4  # advice: MADV_DONTNEED
# Pages in memory; those that were written to before the mapping was closed to writing.
_SIZES = {b"Rss:": 0, b"Anonymous:": 0, b"Swap:": 0}
_NO_LIMIT = 1 << 60  # version 1 says "none" with the largest multiple of a page
_LARGEST = 1 << 20  # bytes of a file in /proc that are read
_DEEPEST = 64  # groups within groups
_LIMIT = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}


def resident(without: Path | None = None, maps: Path = _SMAPS) -> int | None:
    """Return the bytes of memory in use, without those of files in the folder ``without``.

    Pages that are shared with other processes count in full: this one may be their last user.
    None where the system does not say, as qemu's user mode, which reports every mapping as empty.
    """
    inside = bytes(without.resolve()) + b"/" if without else b"\n"  # no name begins with that
    try:
        sizes = (it.sizes[b"Rss:"] for it in _mappings(maps) if not it.name.startswith(inside))
        return sum(sizes) or None
    except OSError:
        return None


class _Mapping(NamedTuple):
    start: int
    end: int
    permissions: bytes
    name: bytes
    sizes: dict[bytes, int]


def _mappings(path: Path) -> Iterator[_Mapping]:
    """Yield each mapping of ``maps`` or ``smaps`` in /proc; the former gives no sizes."""
    mapping: _Mapping | None = None
    with path.open("rb") as lines:
        for line in lines:
            first, *rest = line.split(maxsplit=5)
            if not first.endswith(b":"):
                if mapping:
                    yield mapping
                start, end = (int(part, 16) for part in first.split(b"-"))
                name = rest[4] if len(rest) == 5 else b""
                mapping = _Mapping(start, end, rest[0], name, dict(_SIZES))
            elif mapping and first in _SIZES:
                mapping.sizes[first] = int(rest[0]) * KIB
    if mapping:
        yield mapping


def read_sizes(path: Path = ROLLUP) -> dict[str, int]:
    """Return the sizes in /proc's ``smaps_rollup`` or ``status``, such as ``Pss``, in bytes."""
    fields = [line.split() for line in _read(path).splitlines() if line.endswith(" kB")]
    return {name.rstrip(":"): int(value) * KIB for name, value, _ in fields}


def limit(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit of this process's control groups in bytes, None if none.

    ``root`` is where /proc and the mounts are looked for.
    """
    limits = []
    for kind, folder, top in _control_groups(root):
        path, last = (root / str(group).lstrip("/") for group in (folder, top))
        for group in (path, *path.parents)[:_DEEPEST]:
            text = _read(group / _LIMIT[kind]).strip()
            if text.isdigit() and (value := int(text[:20])) < _NO_LIMIT:
                limits.append(value)
            if group == last:
                break
    return min(limits, default=None)


def _control_groups(root: Path) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Yield this process's groups that may limit memory: version, folder, topmost folder."""
    mounts = []  # version, the group at its root, where it is
    for line in _read(root / "proc/self/mountinfo").splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, *options) = front.split(), back.split() or [""]
        memory = len(options) > 1 and "memory" in options[1].split(",")
        if len(fields) > 4 and (kind == "cgroup2" or (kind == "cgroup" and memory)):
            mounts.append((kind, PurePosixPath(fields[3]), PurePosixPath(fields[4])))
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        for kind, inner, top in mounts:
            # Within a container the mount may begin below what the kernel's path names.
            parts = PurePosixPath(path)
            if kind == ("cgroup" if controllers else "cgroup2") and parts.is_relative_to(inner):
                below = parts.relative_to(inner)
                if ".." not in below.parts:
                    yield kind, top / below, top


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


@cache
def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def forget(start: int, length: int) -> None:
    """Drop the whole pages within ``length`` bytes at address ``start``, where the system can.

    Private memory reads as zeros afterwards, a mapped file as the file.
    """
    if libc := _libc():
        first = -(-start // PAGESIZE) * PAGESIZE
        last = (start + length) // PAGESIZE * PAGESIZE
        if first < last:
            libc.madvise(first, last - first, _DONTNEED)


def forget_files() -> None:
    """Unload every page that is the same in a file; each comes back when it is read.

    An engine's start runs through megabytes of code and a whole model file; texts then need a tenth
    of the one and some rows of the other. Only mappings that cannot be written to and hold no page
    of their own are touched: the whole process's, the caller's too.
    """
    if not _libc():
        return
    with contextlib.suppress(OSError):  # not every kernel has it
        for it in _mappings(_SMAPS):
            own = it.sizes[b"Anonymous:"] or it.sizes[b"Swap:"] or b"w" in it.permissions
            # Nothing to drop where Rss is 0, as in every line that qemu's user mode makes up.
            if it.name.startswith(b"/") and it.sizes[b"Rss:"] and not own:
                forget(it.start, it.end - it.start)


def map_alone(folder: Path) -> None:
    """Have each page of a file in ``folder`` come alone when it is read.

    Linux maps sixteen pages around it, within its mapping: after some hundred texts the whole token
    table. Advice that differs from page to page divides one mapping into many, unless the process
    would come to have more than `MOST_MAPPINGS`.
    """
    if not (libc := _libc()):
        return
    with contextlib.suppress(OSError):
        inside = bytes(folder.resolve()) + b"/"
        count = _MAPS.read_bytes().count(b"\n")
        for it in [it for it in _mappings(_MAPS) if it.name.startswith(inside)]:
            count += (it.end - it.start) // PAGESIZE
            if count > MOST_MAPPINGS:
                return
            # Even pages by their address, so that doing it again changes nothing.
            for page in range(it.start + it.start % (2 * PAGESIZE), it.end, 2 * PAGESIZE):
                libc.madvise(page, PAGESIZE, _RANDOM)


def trim_heap() -> None:
    """Return freed heap memory to the system, where the C library can."""
    if (libc := _libc()) and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
