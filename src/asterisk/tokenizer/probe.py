"""What class Hugging Face's pre-tokenizer gives every code point, asked of it directly.

Its regular-expression engine brings its own version of Unicode; asking it is the only way to agree
with it on every Python. Needs the ``tokenizers`` package; the build alone uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tokenizers import pre_tokenizers

from asterisk.tokenizer.split import LETTER, NUMBER, OTHER, SPACE

_SURROGATES = range(0xD800, 0xE000)


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
