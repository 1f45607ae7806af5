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
    _forget_mapped(str(path.resolve()), "r--s")


def forget_code(library: str) -> None:
    """Unload the code of the loaded libraries whose file name starts with ``library``.

    An engine's start runs through megabytes of code, registering every operator it knows; a
    model calls a tenth of it, which comes back page by page. Code is never written to, so the
    file still holds every byte.
    """
    _forget_mapped(f"/{library}", "r-xp")


def _forget_mapped(name: str, mode: str) -> None:
    if not _libc():
        return
    with _MAPS.open() as lines:
        for line in lines:
            addresses, found, *_, path = line.rstrip("\n").split(maxsplit=5)
            if found == mode and name in f"{path} ":
                start, end = (int(part, 16) for part in addresses.split("-"))
                forget(start, end - start)


def trim_heap() -> None:
    """Return freed heap memory to the system, where the C library can."""
    if (libc := _libc()) and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
