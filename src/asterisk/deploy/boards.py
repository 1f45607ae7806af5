"""The boards a bundle is made for, and what suits each of them.

Why a recipe suits a core is told by instruction counts under emulation (``docs/benchmark.md``) and
by artifacts' sizes and memory (``docs/pareto.md``); nothing here was timed on a board.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from asterisk.common.errors import UnknownName

_INT8, _SMALLER = ("int8", "int8-emb4", "fp32"), ("int8-emb4", "int8", "fp32")
_GGUF = ("q8_0", "q6_k", "q4_k_m", "f16", "fp32")
_RECIPES = {"tflite": _INT8, "onnx": _INT8, "gguf": _GGUF}
_SMALL = {"tflite": _SMALLER, "onnx": _SMALLER, "gguf": _GGUF}
_WITHOUT = "no dotprod: int8 in LiteRT, least memory, as many instructions as in ONNX Runtime"
_WITH = "dotprod: int8 in LiteRT, fewest instructions and least memory"
_SCARCE = "512 MB: the 4-bit table leaves 6 MB more to everything else for 0.003 of cosine"
_OTHERS = {
    "onnx": "int8: fewest instructions in ONNX Runtime",
    "gguf": "q8_0: nearest to FP32 of llama.cpp's quick recipes; no kernels for dotprod in it",
}


@dataclass(frozen=True, slots=True)
class Board:
    """A board: ``page_size`` in bytes of its usual kernel; ``why`` the first recipe comes first.

    ``threads`` texts are embedded at once by default, ``max_memory`` bytes at most are taken (None:
    no limit). ``formats`` stand in order of preference, and so do each format's ``recipes``.
    """

    name: str
    title: str
    page_size: int
    threads: int
    max_memory: int | None
    why: str
    formats: tuple[str, ...] = ("tflite", "onnx", "gguf")
    recipes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _RECIPES)

    def because(self, format: str) -> str:
        """Return in a few words why the first recipe of ``format`` comes first."""
        if self.recipes.get(format) == _RECIPES.get(format) and format in _OTHERS:
            return _OTHERS[format]
        return self.why

    def rank(self, format: str, recipe: str) -> tuple[int, int]:
        """Return how well a recipe of a format suits: less is better; unknown names come last."""
        known = self.recipes.get(format, ())
        return (
            self.formats.index(format) if format in self.formats else len(self.formats),
            known.index(recipe) if recipe in known else len(known),
        )


_ALL = (
    Board("pi3", "Raspberry Pi 3", 4096, 4, None, _WITHOUT),
    Board("pi4", "Raspberry Pi 4", 4096, 4, None, _WITHOUT),
    Board("pi5", "Raspberry Pi 5", 16384, 4, None, _WITH),
    Board("zero2w", "Raspberry Pi Zero 2 W", 4096, 2, 128 << 20, _SCARCE, recipes=_SMALL),
)
BOARDS: Mapping[str, Board] = {board.name: board for board in _ALL}
_MODELS = (  # the first that matches: a 3A+ is a Zero 2 W in all that counts here
    (r"Raspberry Pi Zero 2\b|Raspberry Pi 3 Model A\b", "zero2w"),
    (r"Raspberry Pi (3|Compute Module 3)\b", "pi3"),
    (r"Raspberry Pi (4|400|Compute Module 4S?)\b", "pi4"),
    (r"Raspberry Pi (5|500|Compute Module 5)\b", "pi5"),
)


def board(name: str) -> Board:
    """Return the board called ``name``; UnknownName if there is none."""
    if name not in BOARDS:
        raise UnknownName(f"no board named {name!r}; there are: {', '.join(BOARDS)}")
    return BOARDS[name]


def find(model: str) -> Board | None:
    """Return the board of a ``/proc/device-tree/model`` text; None if it is none of them."""
    text = model.strip("\0 \n")
    for pattern, name in _MODELS:
        if re.match(pattern, text):
            return BOARDS[name]
    return None
