"""Developer tool: what Hugging Face's library knows about every code point, asked of it directly.

    python -m asterisk.tokenizer.probe unicode.json

Its parts bring several versions of Unicode; asking them is the only way to agree with them on every
Python. Needs the ``tokenizers`` package; 0.23.3 made the file in this package.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import normalizers, pre_tokenizers

from asterisk.tokenizer.split import LETTER, NUMBER, OTHER, SPACE

_SURROGATES = range(0xD800, 0xE000)
_HANGUL = range(0xAC00, 0xD7A4)
_POINTS = [p for p in range(sys.maxunicode + 1) if p not in _SURROGATES]


def facts() -> dict[str, Any]:
    """Return what ``unicode.json`` holds; takes about half a minute.

    ``classes`` are GPT-2's, as ``first code point << 2 | class`` of each run. The others are what
    BERT's normaliser and pre-tokeniser go by: sets of code points as ``[first, last]`` of each run
    (``control`` characters vanish in the clean-up, ``space`` ones become a space there, ``cjk``
    ones are set apart, ``marks`` are what accent stripping removes; ``white`` and ``punctuation``
    end a word) and mappings from a character to what replaces it (``nfd`` without Hangul, which is
    algorithmic; ``lower``). ``combining`` is the combining class of every character that has one.
    """
    cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = {p: len(cut(f"a{chr(p)}a")) for p in _POINTS}
    clean, cjk, marks, lower = (
        _one_step(name)
        for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    )
    nfd = normalizers.NFD().normalize_str
    return {
        "classes": class_runs(),
        "control": _runs(p for p in _POINTS if clean(chr(p)) == ""),
        "space": _runs(p for p in _POINTS if clean(chr(p)) == " "),
        "cjk": _runs(p for p in _POINTS if cjk(chr(p)) != chr(p)),
        "marks": _runs(p for p in _POINTS if marks(chr(p)) == ""),
        "white": _runs(p for p in _POINTS if words[p] == 2),
        "punctuation": _runs(p for p in _POINTS if words[p] == 3),
        "nfd": {chr(p): nfd(chr(p)) for p in _POINTS if p not in _HANGUL and nfd(chr(p)) != chr(p)},
        "lower": {chr(p): lower(chr(p)) for p in _POINTS if lower(chr(p)) != chr(p)},
        "combining": _combining(nfd),
    }


def _one_step(name: str) -> Callable[[str], str]:
    """Return BERT's normaliser with one of its four steps."""
    steps = dict.fromkeys(
        ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False
    )
    normalise: Callable[[str], str] = normalizers.BertNormalizer(
        **{**steps, name: True}
    ).normalize_str
    return normalise


def _combining(nfd: Callable[[str], str]) -> dict[str, int]:
    """Return the combining class of each character that has one, seen by what changes places.

    Of two characters the one of the lower class goes first; one without a class never moves.
    """
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240

    def moves(one: str, other: str) -> bool:
        return nfd(one + other) != one + other

    movable = [
        c for c in map(chr, _POINTS) if nfd(c) == c and (moves(c, lowest) or moves(highest, c))
    ]
    one_of = {unicodedata.combining(c): c for c in reversed(movable)}
    return {
        character: number
        for character in movable
        for number, other in one_of.items()
        if not moves(character, other) and not moves(other, character)
    }


def _runs(points: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for point in points:
        if runs and runs[-1][1] == point - 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return runs


def class_runs() -> list[int]:
    """Return ``first code point << 2 | class`` for each run of equal class, in ascending order."""
    runs: list[int] = []
    for point, kind in _classes():
        if not runs or runs[-1] & 3 != kind:
            runs.append(point << 2 | kind)
    return runs


def _classes() -> Iterator[tuple[int, int]]:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    for point in range(sys.maxunicode + 1):
        if point in _SURROGATES:
            yield point, OTHER  # encoded as U+FFFD, which is a symbol
            continue
        character = chr(point)
        # One word with a letter before it means a letter itself, and so on.
        for companion, kind in (("a", LETTER), ("!", OTHER), ("0", NUMBER)):
            if len(cut(companion + character)) == 1:
                yield point, kind
                break
        else:
            yield point, SPACE


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m asterisk.tokenizer.probe", description=__doc__)
    parser.add_argument("out", type=Path)
    lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in facts().items())
    parser.parse_args(argv).out.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
