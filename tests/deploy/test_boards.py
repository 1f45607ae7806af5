"""Boards by name and by what the kernel says they are."""

from __future__ import annotations

import pytest

from asterisk.deploy import boards
from asterisk.exporters import export as exporting


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0\0", "zero2w"),
        ("Raspberry Pi 3 Model B Rev 1.2", "pi3"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3\0", "pi3"),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "zero2w"),
        ("Raspberry Pi 4 Model B Rev 1.5", "pi4"),
        ("Raspberry Pi 400 Rev 1.0", "pi4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "pi4"),
        ("Raspberry Pi Compute Module 4S Rev 1.0", "pi4"),
        ("Raspberry Pi 5 Model B Rev 1.0\0\n", "pi5"),
        ("Raspberry Pi 500 Rev 1.0", "pi5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "pi5"),
        ("Raspberry Pi Zero W Rev 1.1", None),  # 32-bit
        ("Raspberry Pi 2 Model B Rev 1.1", None),
        ("Raspberry Pi 40", None),
        ("Some Raspberry Pi 4", None),
        ("", None),
    ],
)
def test_models(model, name):
    found = boards.find(model)
    assert (found and found.name) == name


@pytest.mark.parametrize("board", boards.BOARDS.values(), ids=str)
def test_what_a_board_prefers_exists(board):
    for format, recipes in board.recipes.items():
        assert set(recipes) == {it.name for it in exporting.find_exporter(format).recipes}
        assert board.because(format)
    assert set(boards.FORMATS) == set(board.recipes) == set(exporting.formats())
    assert board.rank("tflite", board.recipes["tflite"][0]) == (0, 0)
    assert board.rank("tflite", "unknown") > board.rank("tflite", board.recipes["tflite"][-1])
