"""Memory that holds nothing worth keeping, given back to the system. Elsewhere than Linux, no-ops.

Sources: madvise(2), malloc_trim(3), proc_pid_maps(5).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

_MAPS = Path("/proc/self/maps")


@cache
def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def forget(start: int, length: int) -> None:
    """Drop the whole pages within ``length`` bytes at address ``start``.

    Private memory reads as zeros afterwards, a mapped file as the file. A refusal is no error.
    """
    if libc := _libc():
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            libc.madvise(first, last - first, mmap.MADV_DONTNEED)


def forget_file(path: Path) -> None:
    """Unload the pages of every read-only shared mapping of ``path``; each comes back when read.

    Only pages that are read again then count as this process's memory.
    """
    if not _libc():
        return
    name = str(path.resolve())
    with _MAPS.open() as lines:
        for line in lines:
            addresses, mode, *_ = line.split(" ", 2)
            if mode == "r--s" and line.rstrip("\n").endswith(f" {name}"):
                start, end = (int(part, 16) for part in addresses.split("-"))
                forget(start, end - start)


def trim_heap() -> None:
    """Return freed heap memory to the system, where the C library can."""
    if (libc := _libc()) and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
