"""Make ``unicode.json`` again: what Hugging Face's library knows about every code point.

    python tests/tokenizer/unicode_probe.py src/asterisk/tokenizer/unicode.json

tokenizers 0.23.3 made the file in the package. `asterisk.tokenizer.build.unicode_facts` says what
is in it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import normalizers, pre_tokenizers

from asterisk.tokenizer.bpe import LETTER, NUMBER, OTHER, SPACE

POINTS = range(sys.maxunicode + 1)
SYLLABLES = range(0xAC00, 0xD7A4)  # of Hangul


def probe() -> dict[str, Any]:
    """Return what ``unicode.json`` holds; takes about half a minute."""
    points = {p: chr(p) for p in POINTS if not 0xD800 <= p < 0xE000}
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    clean, cjk, marks, lower = (
        normalizers.BertNormalizer(**{**dict.fromkeys(names, False), name: True}).normalize_str
        for name in names
    )
    cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = {p: len(cut(f"a{c}a")) for p, c in points.items()}
    nfd = normalizers.NFD().normalize_str
    return {
        "classes": classruns(points),
        "control": runs(p for p, c in points.items() if clean(c) == ""),
        "space": runs(p for p, c in points.items() if clean(c) == " "),
        "cjk": runs(p for p, c in points.items() if cjk(c) != c),
        "marks": runs(p for p, c in points.items() if marks(c) == ""),
        "white": runs(p for p in points if words[p] == 2),
        "punctuation": runs(p for p in points if words[p] == 3),
        "nfd": {c: nfd(c) for p, c in points.items() if p not in SYLLABLES and nfd(c) != c},
        "lower": {c: lower(c) for c in points.values() if lower(c) != c},
        "combining": combining(points.values(), nfd),
    }


def combining(characters: Iterable[str], nfd: Callable[[str], str]) -> dict[str, int]:
    """Return the combining class of each character that has one, seen by what changes places.

    Of two characters the one of the lower class goes first; one without a class never moves.
    """
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240

    def moves(one: str, other: str) -> bool:
        return nfd(one + other) != one + other

    movable = [c for c in characters if nfd(c) == c and (moves(c, lowest) or moves(highest, c))]
    one_of = {unicodedata.combining(c): c for c in reversed(movable)}
    return {
        character: number
        for character in movable
        for number, other in one_of.items()
        if not moves(character, other) and not moves(other, character)
    }


def runs(points: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return runs


def classruns(points: Mapping[int, str]) -> list[int]:
    """Return ``first code point << 2 | class`` for each run of equal class, in ascending order."""
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    # One word with a letter before it means a letter itself, and so on.
    companions = (("a", LETTER), ("!", OTHER), ("0", NUMBER))
    runs: list[int] = []
    for point in POINTS:
        character = points.get(point, "\ufffd")  # what surrogates are encoded as
        matches = (kind for one, kind in companions if len(cut(one + character)) == 1)
        kind = next(matches, SPACE)
        if not runs or runs[-1] & 3 != kind:
            runs.append(point << 2 | kind)
    return runs


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in probe().items())
    Path(sys.argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
