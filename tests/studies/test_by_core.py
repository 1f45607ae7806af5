"""What a stand-in for a board is made of, and the table of instructions by core."""

from __future__ import annotations

import pytest

from asterisk.artifact import open_artifact
from asterisk.bench.targets import Unavailable
from asterisk.bench.targets.emulated import find_counting, root_path
from benchmarks import board_root, by_core

BOOKWORM, TRIXIE = board_root.SYSTEMS


@pytest.fixture
def nothing_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_root_is_named_after_what_it_is_made_of(monkeypatch):
    places = {board_root.path(BOOKWORM), board_root.path(TRIXIE), root_path()}
    assert len(places) == 3
    monkeypatch.setattr(board_root, "PACKAGES", ("python3",))
    assert board_root.path(BOOKWORM) not in places


@pytest.mark.usefixtures("nothing_made")
def test_one_that_is_not_made_is_told_how_to_make():
    with pytest.raises(Unavailable, match=r"python -m benchmarks\.board_root"):
        board_root.find(TRIXIE)


@pytest.mark.usefixtures("nothing_made")
def test_instructions_without_the_counting_qemu_are_one_line(artifact_of, capsys):
    assert by_core.main([str(artifact_of("tflite", "int8"))]) != 0
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith("by-core: instructions need qemu with plugins: python -m ")


@pytest.mark.slow
def test_dot_products_spare_instructions(artifact_of):
    if find_counting() is None or not (root_path() / "made.json").is_file():
        pytest.skip("qemu with plugins is not built: python -m benchmarks.emulation --counting")
    artifact = open_artifact(artifact_of("tflite", "int8"))
    _, _, *rows = by_core.table([artifact], ["cortex-a72", "cortex-a76"])
    found = [row.strip("| ").split(" | ") for row in rows]
    assert [row[:3] for row in found] == [
        ["tflite", "int8", core] for core in ("cortex-a72", "cortex-a76")
    ]
    without, with_them = ([float(figure) for figure in row[3:]] for row in found)
    assert all(2 * less < more for less, more in zip(with_them, without, strict=True))
    assert without == sorted(without)
