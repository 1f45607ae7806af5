"""Writing leaves the whole new thing or the old one, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asterisk.common.errors import OutputError
from asterisk.common.files import replacing_file, replacing_folder


def nothing(folder):
    return False


def everything(folder):
    return True


def test_a_folder_appears_whole(tmp_path):
    with replacing_folder(tmp_path / "new", nothing) as staging:
        (staging / "a").write_text("1")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")
    with replacing_folder(target, everything) as staging:
        (staging / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_failure_leaves_the_old(tmp_path, failure):
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")

    def fail():
        with replacing_folder(target, everything) as staging:
            (staging / "new").write_text("new")
            raise failure("no space")

    with pytest.raises(OutputError if failure is OSError else failure):
        fail()
    assert (target / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_file_is_replaced_or_left(tmp_path):
    target = tmp_path / "it"
    with replacing_file(target) as staging:
        staging.write_text("first")

    def fail():
        with replacing_file(target) as staging:
            staging.write_text("second")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), replacing_folder(tmp_path / "file" / "below", nothing):
        pass
    with pytest.raises(OutputError), replacing_file(tmp_path / "none" / "below"):
        pass


def test_killed_while_replacing_leaves_one_of_the_two(tmp_path):
    """A process killed at any moment of the swap never leaves the name without a folder."""
    target = tmp_path / "it"
    target.mkdir()
    (target / "which").write_text("old")
    code = (
        "import os, sys, pathlib, asterisk.common.files as files\n"
        "fsync = os.fsync\n"
        "count = 0\n"
        "def dying(descriptor):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == int(sys.argv[2]):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    fsync(descriptor)\n"
        "os.fsync = dying\n"
        "with files.replacing_folder(pathlib.Path(sys.argv[1]), bool) as staging:\n"
        "    (staging / 'which').write_text('new')\n"
    )
    for step in range(1, 5):
        subprocess.run([sys.executable, "-c", code, target, str(step)], check=False, timeout=60)
        assert (target / "which").read_text() in {"old", "new"}


def test_what_is_not_ours_is_left_alone(tmp_path):
    target = tmp_path / "it"
    target.mkdir()
    with replacing_folder(target, nothing) as staging:  # an empty folder may be filled
        (staging / "which").write_text("first")
    with pytest.raises(OutputError, match="left alone"), replacing_folder(target, nothing):
        pass
    assert (target / "which").read_text() == "first"
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "it" / "which"):
        with pytest.raises(OutputError, match="not a folder"), replacing_folder(path, everything):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "it"]


def test_links_are_followed_and_special_files_refused(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with replacing_file(tmp_path / "link") as staging:
        staging.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(OutputError, match="not a plain file"), replacing_file(path):
            pass
    assert (tmp_path / "fifo").is_fifo()


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o077)
    try:
        with replacing_file(tmp_path / "file") as staging:
            staging.write_text("")
        with replacing_folder(tmp_path / "folder", nothing) as staging:
            (staging / "inside").write_text("")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder")]
    assert modes == [0o600, 0o700]


def test_two_writers_at_once(tmp_path):
    """Whoever is second replaces the first; nothing is left beside the target."""
    with replacing_folder(tmp_path / "it", everything) as one:
        (one / "which").write_text("one")
        with replacing_folder(tmp_path / "it", everything) as two:
            (two / "which").write_text("two")
    assert (tmp_path / "it" / "which").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
