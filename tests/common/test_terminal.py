"""Bars on a terminal and nothing anywhere else; foreign text on one line."""

from __future__ import annotations

import os
import subprocess
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.common.terminal import escaped, excerpt, lines_of, plain, printable

SHOW = """
import sys
from concurrent.futures import ThreadPoolExecutor
from asterisk.common.terminal import Bar, Stages, report
if sys.argv[1:] == ["without"]:
    sys.modules["tqdm"] = None
with Bar(lambda: 4_000, "texts") as bar, ThreadPoolExecutor(4) as pool:
    for _ in pool.map(lambda _: bar.advance(), range(3_999)):
        pass
    bar.advance()
    report("a line")
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
        seen = b""
        while True:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            seen += block
    os.close(ours)
    assert process.returncode == 0, seen
    return seen.decode()


def test_a_terminal_sees_how_far_it_is_and_nothing_is_left():
    pytest.importorskip("tqdm")
    seen = shown()
    assert "4000/4000" in seen
    assert "read: " in seen
    assert "compared: " in seen
    lines = [line.rpartition("\r")[2].strip() for line in seen.replace("\r\n", "\n").split("\n")]
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


@given(st.text())
def test_foreign_text_is_one_harmless_line(text):
    shown = printable(text)
    assert all(sign.isprintable() or sign in "\u200c\u200d" for sign in shown)
    assert "  " not in shown
    assert shown == shown.strip()
    assert escaped(text).isprintable()


def test_escapes_keep_different_texts_different():
    assert printable("a\x1b[31m\nb\u202e") == "a [31m b"
    assert escaped("a\nb") == "a\\nb"
    assert escaped("a b") == "a b"


def test_an_answer_of_another_machine_is_short_and_shallow():
    assert excerpt("x" * 9_999) == "x" * 300
    assert plain({"a\n": ["b\x07", 1, None]}) == {"a": ["b", 1, None]}
    deep = []
    for _ in range(9):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        plain(deep)
