"""Pages of mapped files: which come, and which stay."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from asterisk.common import process_memory as pages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux about pages")
AROUND = 16  # pages that Linux maps with the one that is read

_TOUCH = """
import mmap, sys
from pathlib import Path
from asterisk.runtimes import pages

path, alone = Path(sys.argv[1]), sys.argv[2] == "alone"
with path.open("rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
if alone:
    pages.map_alone(path.parent)
    pages.map_alone(path.parent)  # once more changes nothing
sums = sum(mapped[place] for place in range(0, len(mapped), 16 * mmap.PAGESIZE))
resident = wanted = 0
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0]:
        wanted = line.rstrip().endswith(str(path))
    elif wanted and line.startswith("Rss:"):
        resident += int(line.split()[1]) * 1024
print(resident // mmap.PAGESIZE, sums)
"""


def _resident(path: Path, how: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", _TOUCH, path, how], capture_output=True, check=True, timeout=60
    )
    resident, sums = done.stdout.split()
    return int(resident), int(sums)


def test_a_page_that_is_read_comes_alone(tmp_path):
    path = tmp_path / "table.bin"
    path.write_bytes(bytes(range(1, 17)) * (64 * AROUND * mmap.PAGESIZE // 16))
    neighbours, alone = _resident(path, "not"), _resident(path, "alone")
    assert alone == (64, 64)  # each of 64 pages that were read, and what stood in it
    assert neighbours[1] == 64
    if neighbours[0] < 128:
        pytest.skip("this kernel maps no pages around one that is read")


def test_a_process_keeps_mappings_for_others(tmp_path, monkeypatch):
    path = tmp_path / "table.bin"
    path.write_bytes(bytes(64 * mmap.PAGESIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = len(Path("/proc/self/maps").read_bytes().splitlines())
        monkeypatch.setattr(pages, "MOST_MAPPINGS", before + 32)
        pages.map_alone(tmp_path)
        assert len(Path("/proc/self/maps").read_bytes().splitlines()) < before + 32
        monkeypatch.setattr(pages, "MOST_MAPPINGS", before + 100)
        pages.map_alone(tmp_path)
        assert len(Path("/proc/self/maps").read_bytes().splitlines()) >= before + 60
        assert mapped[-1] == 0


@pytest.mark.parametrize(("resident", "kept"), [(0, True), (4, False)])
def test_a_system_that_makes_up_its_maps_loses_nothing(tmp_path, monkeypatch, resident, kept):
    """qemu-user says 0 kB of everything, written pages too; forgetting those would be fatal."""
    size = mmap.PAGESIZE
    path = tmp_path / "file"
    path.write_bytes(b"f" * size)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as area:
        area[:7] = b"written"
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        smaps = tmp_path / "smaps"
        smaps.write_text(
            f"{start:x}-{start + size:x} r--p 00000000 fe:00 12 {path}\n"
            f"Rss: {resident:>12} kB\nAnonymous:           0 kB\nVmFlags: rd mr\n"
        )
        monkeypatch.setattr(pages, "_MAPS", smaps)
        pages.forget_files()
        assert (area[:7] == b"written") == kept
