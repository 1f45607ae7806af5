"""What native libraries ask for: their headers against readelf, and against files that lie."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asterisk.common.errors import ArtifactError, EngineError
from asterisk.deploy import boards, libraries

HERE = sorted(Path(np.__file__).parent.rglob("*.so"))
HERE += sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("*.so*"))
SMALLEST = min(HERE, key=lambda path: path.stat().st_size)


def readelf(path, *options):
    done = subprocess.run(
        ["readelf", "-W", *options, path], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf to compare with")
@pytest.mark.parametrize("path", HERE, ids=lambda path: path.name)
def test_it_says_what_readelf_says(path):
    agrees(path)


def agrees(path):
    found = libraries.read(path)
    dynamic = readelf(path, "-d")
    assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    loads = [line for line in readelf(path, "-l").splitlines() if line.strip().startswith("LOAD")]
    assert found.alignment == min(int(line.split()[-1], 16) for line in loads)
    needs = readelf(path, "-V").partition("Version needs section")[2]
    for family in ("GLIBC", "GLIBCXX", "CXXABI", "GCC"):
        names = re.findall(rf"Name: {family}_([0-9.]+)\s", needs)
        highest = max((tuple(map(int, name.split("."))) for name in names), default=None)
        assert found.versions.get(family) == highest, family
    machine = {libraries.X86_64: "X86-64", libraries.AARCH64: "AArch64"}[found.machine]
    assert machine in readelf(path, "-h")


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"MZ" + bytes(200), b"\x7fELF\x01\x01\x01" + bytes(100)]
)
def test_what_is_no_library_is_refused(tmp_path, data):
    path = tmp_path / "it.so"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="not a sound 64-bit shared library") as caught:
        libraries.read(path)
    assert "\n" not in str(caught.value)


HEAD = SMALLEST.read_bytes()


@settings(max_examples=100, deadline=2000)
@given(
    st.lists(st.tuples(st.integers(0, 1023), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, len(HEAD)),
)
@example([(54, b"\xff\xff\xff\xff")], 0)
@example([(32, b"\xff" * 8)], 0)
def test_a_file_that_lies_is_read_or_refused(tmp_path_factory, changes, cut):
    data = bytearray(HEAD[: len(HEAD) - cut])
    for at, new in changes:
        if at + len(new) <= len(data):
            data[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "lying.so"
    path.write_bytes(data)
    try:
        found = libraries.read(path)
    except ArtifactError:
        return
    assert found.alignment >= 1
    assert all(len(name) < 512 for name in found.needed)


def test_a_dynamic_table_that_lies_is_read_or_refused(tmp_path):
    """Every byte of the tables that the loader would read, set to 255 in turn."""
    dynamic = re.search(r"DYNAMIC\s+(0x\w+) \S+ \S+ (0x\w+)", readelf(SMALLEST, "-l"))
    start, size = (int(part, 16) for part in dynamic.groups())
    path = tmp_path / "lying.so"
    refused = 0
    for at in range(start, start + size):
        data = bytearray(HEAD)
        data[at] = 255
        path.write_bytes(data)
        try:
            libraries.read(path)
        except ArtifactError:
            refused += 1
    assert refused > 8


def test_tables_without_an_end_are_refused(tmp_path):
    """A dynamic table of half a million entries, and 2**62 versions that lead to themselves."""
    start = int(re.search(r"DYNAMIC\s+(0x\w+)", readelf(SMALLEST, "-l"))[1], 16)
    entries = HEAD[:start] + (1).to_bytes(8, "little") * 1_000_000
    tag = (0x6FFFFFFF).to_bytes(8, "little")
    versioned = min((it.read_bytes() for it in HERE if tag in it.read_bytes()), key=len)
    number = versioned.index(tag) + 8
    versions = versioned[:number] + (1 << 62).to_bytes(8, "little") + versioned[number + 8 :]
    path = tmp_path / "endless.so"
    for data in (entries, versions):
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match="a table without an end"):
            libraries.read(path)


# --- native libraries --------------------------------------------------------------------------


def library(folder, name, **header):
    """Return a shared library as told; the words are those of `libraries.Library`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x7fELF")
    values = {"machine": libraries.AARCH64, "alignment": 65536, "needed": (), "versions": {}}
    return libraries.Library(**{**values, **header})


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"machine": libraries.X86_64}, "is not for aarch64"),
        ({"alignment": 4096}, "aligned to 4 KiB: a kernel with pages of 16 KiB"),
        ({"versions": {"GLIBC": (2, 37)}}, r"needs GLIBC 2\.37; bookworm has 2\.36"),
        ({"versions": {"GLIBCXX": (3, 4, 31)}}, r"needs GLIBCXX 3\.4\.31; bookworm has 3\.4\.30"),
        ({"needed": ("libmissing.so.1",)}, "needs libmissing.so.1, which nothing brings"),
    ],
)
def test_a_library_that_would_not_load_is_refused(tmp_path, monkeypatch, header, reason):
    found = library(tmp_path, "libit.so", **header)
    monkeypatch.setattr(libraries, "read", lambda path: found)
    with pytest.raises(EngineError, match=reason):
        libraries.check(libraries.read_all(tmp_path), boards.BOARDS["pi4"], "3.11")


def test_what_slim_systems_lack_is_to_be_probed_for(tmp_path, monkeypatch):
    needed = ("libc.so.6", "libgomp.so.1", "libit.so")
    found = library(tmp_path, "libit.so", needed=needed, versions={"GLIBC": (2, 38)})
    monkeypatch.setattr(libraries, "read", lambda path: found)
    asked = libraries.check(libraries.read_all(tmp_path), boards.BOARDS["pi5"], "3.13")
    assert asked == libraries.Needs((2, 38), 65536, {"libgomp.so.1": "libgomp1"})
