"""Bars on a terminal, and nothing anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.common.terminal import lines_of

SHOW = """
import sys
from concurrent.futures import ThreadPoolExecutor
from asterisk.common.terminal import Bar, Stages, tell
if sys.argv[1:] == ["without"]:
    sys.modules["tqdm"] = None
with Bar(lambda: 4_000, "texts") as bar, ThreadPoolExecutor(4) as pool:
    for _ in pool.map(lambda _: bar.advance(), range(3_999)):
        pass
    bar.advance()
    tell("a line")
with Stages() as stages:
    for stage in ("read", "compared"):
        for done in range(3):
            stages(stage, done, 2)
"""


def shown(*words):
    """Return what a terminal gets."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (25, 80))
    with subprocess.Popen([sys.executable, "-c", SHOW, *words], stderr=theirs) as process:
        os.close(theirs)
        told = b""
        while True:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            told += block
    os.close(ours)
    assert process.returncode == 0, told
    return told.decode()


def test_a_terminal_sees_how_far_it_is_and_nothing_is_left():
    pytest.importorskip("tqdm")
    told = shown()
    assert "4000/4000" in told
    assert "read: " in told
    assert "compared: " in told
    lines = [line.rpartition("\r")[2].strip() for line in told.replace("\r\n", "\n").split("\n")]
    assert lines == ["a line", ""]


def test_without_tqdm_or_a_terminal_there_are_lines_only():
    assert shown("without") == "a line\r\n"
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stderr == "a line\n"


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_lines_are_counted_as_they_are_read(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("lines")
    paths = [folder / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    read = 0
    for path in paths:
        with path.open("rb") as file:
            read += sum(1 for _ in file)
    assert lines_of(paths) == read
    assert lines_of([*paths, folder]) == 0
