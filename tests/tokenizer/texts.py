"""Texts that a tokenizer is likely to get wrong."""

from __future__ import annotations

import re

from hypothesis import strategies as st

AWKWARD = [
    "",
    " ",
    "  ",
    "   x",
    "x   ",
    "\t\n\r\x0b\x0c \x1c\x1d\x1e\x1f\x85\xa0",
    "a\x1cb \x1c \x1c1 \x85 \xa0b",
    "it's I'm we're you've he'll she'd IT'S 'S ''s '''re 'r 'l 'lla 'rest 'vet",
    " 's '  's \u2019s 'ſ 'ß",
    "<|endoftext|>",
    "[PAD][MASK] [PAD] <|endoftext|>x [MASK",
    "naïve café \u0301e\u0301 ñ",
    "日本語テスト、全角　空白 한국어 中文",
    "١٢٣ ½ Ⅷ ² ₃ 𝟘 ๑",
    "👩‍👩‍👧‍👦 🏳️‍🌈 ☃️👍🏽 e\u200d \u200b\ufeff",
    "\u2028\u2029\u3000x \u2003y\u2003 z",
    "\x00\x01\x7f\x80\xff\ud7ff\ue000\uffff\U0010ffff",
    "\r\n\r\n x\n\n\ny \n z",
    "x" * 500 + "'" + "-" * 300 + " " * 300 + "=" * 300,
    "def f(x):\n        return x**2  # ok\n\n\n",
    "https://example.org/a?b=c&d=%20#e 3.14159 1,000,000",
]

_SPACES = (" ", "  ", "\n", "\t", "\xa0", "\u3000", "\x1c")
_MARKS = ("'", "!", "...", "1", "²", "中", "🙂", "<|endoftext|>", "[PAD]", "[MASK]")
_LETTERS = ("'s", "'re", "'ll", "r", "ve", "a", "the", "é", "e\u0301", "İ")
_PIECES = st.sampled_from(_SPACES + _MARKS + _LETTERS)
_CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(_CHARACTERS, max_size=60),
    st.lists(_PIECES | _CHARACTERS, max_size=40).map("".join),
    st.lists(_PIECES, max_size=60).map("".join),
    st.text(st.characters(max_codepoint=0x7F), max_size=80),
    st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz "), max_size=200),
    st.builds(lambda piece, times: piece * times, st.text(_CHARACTERS, max_size=4), st.just(70)),
)

# Every code point of the planes that have characters, and some of those that have none or none but
# private ones.
POINTS = [p for p in range(0x40000) if not 0xD800 <= p < 0xE000]
POINTS += [*range(0x40000, 0xE0000, 61), *range(0xE0000, 0xE1000), *range(0xE1000, 0x110000, 61)]
POINTS += [0x10FFFF]

SURROGATES = st.text(
    st.characters() | st.sampled_from("\ud800\ud835\udbff\udc00\udfff a'"), max_size=40
)
"""Texts with surrogates, many of them in pairs."""


def readable(text: str) -> str:
    """What a text with surrogates is read as: pairs as characters, lone ones as U+FFFD."""

    def character(match: re.Match[str]) -> str:
        high, low = match[0][0], match[0][-1]
        if high == low:
            return "\ufffd"
        return chr(0x10000 + (ord(high) - 0xD800) * 0x400 + ord(low) - 0xDC00)

    return re.sub("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]", character, text)
