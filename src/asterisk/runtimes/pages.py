"""Memory that holds nothing worth keeping, given back to the system. Elsewhere than Linux, no-ops.

Sources: madvise(2), malloc_trim(3), proc_pid_maps(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

MOST_MAPPINGS = 20_000  # Linux allows a process 65,530 (vm.max_map_count); others need some
_MAPS = Path("/proc/self/smaps")
_ADDRESSES = Path("/proc/self/maps")
_RANDOM = 1  # advice: MADV_RANDOM
_OWN = {b"Anonymous:", b"Swap:"}  # pages that were written to before the mapping was closed
_RESIDENT = b"Rss:"  # nothing to forget where it is 0, as in every line that qemu-user makes up
_LAST = b"VmFlags:"  # ends the description of a mapping


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


def forget_files() -> None:
    """Unload every page that is the same in a file; each comes back when it is read.

    An engine's start runs through megabytes of code, registering every operator it knows, and
    through a whole model file; texts then need a tenth of the one and some rows of the other.
    Only mappings that cannot be written to and hold no page of their own are touched: of those
    the files have every byte. It is the whole process's pages, the caller's too, once at a load.
    """
    if not _libc():
        return
    start = end = 0
    with contextlib.suppress(OSError), _MAPS.open("rb") as lines:  # not every kernel has it
        for line in lines:
            first, *rest = line.split(maxsplit=5)
            if not first.endswith(b":"):
                wanted = b"w" not in rest[0] and len(rest) == 5 and rest[-1].startswith(b"/")
                start, end = (int(part, 16) for part in first.split(b"-")) if wanted else (0, 0)
            elif (first in _OWN and rest[0] != b"0") or (first == _RESIDENT and rest[0] == b"0"):
                end = 0
            elif first == _LAST and end:
                forget(start, end - start)


def map_alone(folder: Path) -> None:
    """Have each page of a file in ``folder`` come alone when it is read.

    Linux maps sixteen pages around the one that is read, which after some hundred texts is the
    whole token table, for rows of a quarter of a kilobyte. It does not reach beyond a mapping, and
    advice that differs from page to page divides one mapping into many. Left alone where the
    process would come to have more than `MOST_MAPPINGS`.
    """
    if not (libc := _libc()):
        return
    with contextlib.suppress(OSError):
        mappings = _ADDRESSES.read_bytes().splitlines()
        inside = bytes(folder.resolve()) + b"/"
        count = len(mappings)
        for mapping in mappings:
            addresses, *_, name = mapping.split(maxsplit=5)
            if not name.startswith(inside):
                continue
            start, end = (int(part, 16) for part in addresses.split(b"-"))
            parts = (end - start) // mmap.PAGESIZE
            if count + parts > MOST_MAPPINGS:
                return
            count += parts
            # Even pages by their address, so that doing it again changes nothing.
            for page in range(start + start % (2 * mmap.PAGESIZE), end, 2 * mmap.PAGESIZE):
                libc.madvise(page, mmap.PAGESIZE, _RANDOM)


def trim_heap() -> None:
    """Return freed heap memory to the system, where the C library can."""
    if (libc := _libc()) and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
