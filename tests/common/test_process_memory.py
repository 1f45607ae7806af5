"""What a process occupies and may occupy, and which pages of mapped files come and stay."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asterisk.common import process_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux about pages")
AROUND = 16  # pages that Linux maps with the one that is read

_TOUCH = """
import mmap, sys
from pathlib import Path
from asterisk.common import process_memory

path, alone = Path(sys.argv[1]), sys.argv[2] == "alone"
with path.open("rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
if alone:
    process_memory.map_alone(path.parent)
    process_memory.map_alone(path.parent)  # once more changes nothing
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
        monkeypatch.setattr(process_memory, "MOST_MAPPINGS", before + 32)
        process_memory.map_alone(tmp_path)
        assert len(Path("/proc/self/maps").read_bytes().splitlines()) < before + 32
        monkeypatch.setattr(process_memory, "MOST_MAPPINGS", before + 100)
        process_memory.map_alone(tmp_path)
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
        monkeypatch.setattr(process_memory, "_SMAPS", smaps)
        process_memory.forget_files()
        assert (area[:7] == b"written") == kept


V1 = """12:memory:/docker/abc/inner
1:name=systemd:/docker/abc
0::/
"""
V1_MOUNTS = """30 24 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
"""
V2_MOUNTS = "29 24 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def system(root: Path, cgroup: str, mounts: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mounts)
    for path, text in limits.items():
        (root / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "mounts", "limits", "expected"),
    [
        ("0::/a.slice/b\n", V2_MOUNTS, {"a.slice/b/memory.max": "67108864\n"}, 64 << 20),
        (
            "0::/a/b\n",
            V2_MOUNTS,
            {"a/b/memory.max": "max\n", "a/memory.max": "1000000\n", "memory.max": "max"},
            1_000_000,
        ),
        ("0::/a\n", V2_MOUNTS, {"a/memory.max": "max\n"}, None),
        (V1, V1_MOUNTS, {"memory/inner/memory.limit_in_bytes": "4096000\n"}, 4_096_000),
        (
            V1,
            V1_MOUNTS,
            {
                "memory/inner/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.limit_in_bytes": "5000000\n",
            },
            5_000_000,
        ),
        (V1, V1_MOUNTS, {"memory/inner/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/../a\n", V2_MOUNTS, {"memory.max": "1"}, None),
        ("0::/a\n", V2_MOUNTS, {"a/memory.max": "rubbish"}, None),
        ("rubbish\n::\n", "rubbish - \n", {}, None),
    ],
)
def test_the_lowest_limit_of_a_groups_ancestors_counts(tmp_path, cgroup, mounts, limits, expected):
    assert process_memory.limit(system(tmp_path, cgroup, mounts, limits)) == expected


def test_a_system_without_groups_sets_no_limit(tmp_path):
    assert process_memory.limit(tmp_path) is None


def test_memory_is_counted_mapping_by_mapping(tmp_path):
    maps = tmp_path / "smaps"
    folder = tmp_path / "model"
    folder.mkdir()
    maps.write_text(
        "1000-2000 rw-p 00000000 00:00 0\nRss: 12 kB\nAnonymous: 12 kB\nVmFlags: rd\n"
        f"2000-3000 r--s 00000000 08:01 7 {folder}/weights.bin\nRss: 100 kB\nVmFlags: rd\n"
        "3000-4000 r-xp 00000000 08:01 8 /usr/lib/a b.so\nRss: 30 kB\nVmFlags: rd\n"
    )
    assert process_memory.resident(maps=maps) == 142 << 10
    assert process_memory.resident(folder, maps) == 42 << 10
    maps.write_text("1000-2000 rw-p 00000000 00:00 0\nRss: 0 kB\n")  # as under qemu
    assert process_memory.resident(maps=maps) is None
    assert process_memory.resident(maps=tmp_path / "none") is None


def test_the_kernels_sums_are_in_bytes():
    sizes = process_memory.read_sizes(Path(f"/proc/{os.getpid()}/smaps_rollup"))
    assert 1 << 20 < sizes["Pss"] <= sizes["Rss"] < 2 * process_memory.resident()
    assert process_memory.read_sizes(Path("/proc/none/smaps_rollup")) == {}
