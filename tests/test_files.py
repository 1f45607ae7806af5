"""Writing leaves the whole new thing or the old one, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asterisk.errors import OutputError
from asterisk.files import replacing_file, replacing_folder


def test_a_folder_appears_whole(tmp_path):
    with replacing_folder(tmp_path / "new") as staging:
        (staging / "a").write_text("1")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")
    with replacing_folder(target) as staging:
        (staging / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_failure_leaves_the_old(tmp_path, failure):
    target = tmp_path / "it"
    target.mkdir()
    (target / "old").write_text("old")

    def fail():
        with replacing_folder(target) as staging:
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
    with pytest.raises(OutputError), replacing_folder(tmp_path / "file" / "below"):
        pass
    with pytest.raises(OutputError), replacing_file(tmp_path / "none" / "below"):
        pass


def test_killed_while_replacing_leaves_one_of_the_two(tmp_path):
    """A process killed at any moment of the swap never leaves the name without a folder."""
    target = tmp_path / "it"
    target.mkdir()
    (target / "which").write_text("old")
    code = (
        "import os, sys, pathlib, asterisk.files as files\n"
        "fsync = os.fsync\n"
        "count = 0\n"
        "def dying(descriptor):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == int(sys.argv[2]):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    fsync(descriptor)\n"
        "os.fsync = dying\n"
        "with files.replacing_folder(pathlib.Path(sys.argv[1])) as staging:\n"
        "    (staging / 'which').write_text('new')\n"
    )
    for step in range(1, 5):
        subprocess.run([sys.executable, "-c", code, target, str(step)], check=False, timeout=60)
        assert (target / "which").read_text() in {"old", "new"}
