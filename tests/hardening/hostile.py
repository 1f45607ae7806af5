"""Texts that nobody would write, by the hundred thousand, the same for the same seed."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

from hypothesis import strategies as st

SPECIALS = (
    *("<|endoftext|>", "[PAD]", "[MASK]", "[CLS]", "[SEP]", "<s>", "</s>", "<unk>"),
    *("<|im_start|>", "<|im_end|>", "<pad>", "##ing", "\u0120", "\u010a", "\u2581"),
)
SPACES = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
)
BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"
INVISIBLE = "\x00\xad\u034f\u200b\u200c\u200d\u2060\ufe0f\ufeff\ufffc\ufffd\ufffe\uffff\U000e0001"
COMBINING = [chr(point) for point in range(0x300, 0x370)]
EMOJI = ["👩", "👨", "👧", "👦", "🏳", "🌈", "❤", "🧑🏿", "🚀", "👍🏽", "🇩🇪", "☃", "🔟"]
SCRIPTS = ((0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF))
SCRIPTS += ((0x900, 0xDFF), (0xE00, 0xFFF), (0x1100, 0x11FF), (0x3040, 0x30FF))
SCRIPTS += ((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF))
PLANES = ((0, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF))
APOSTROPHES = ("'s", "'ll", "'re", "''", "'S", "\u2019s", "don't", "'ve", "'", " '", "'\u017f")
LONGEST = 1_000_000


def texts(seed: int, count: int, *, longest: int = LONGEST) -> Iterator[str]:
    """Yield ``count`` hostile texts: nearly all short, one in 2,500 up to ``longest``."""
    chance = random.Random(seed)
    for index in range(count):
        if index % 2_500 == 7:
            yield _long(chance, longest)
        elif index % 400 == 3:
            yield _long(chance, 4_000)
        else:
            yield chance.choice(_SHORT)(chance)


def _characters(chance: random.Random, ranges: tuple[tuple[int, int], ...], most: int) -> str:
    low, high = chance.choice(ranges)
    return "".join(chr(chance.randint(low, high)) for _ in range(chance.randint(1, most)))


def _drawn(chance: random.Random, alphabet: str | list[str], most: int) -> str:
    return "".join(chance.choices(alphabet, k=chance.randint(1, most)))


def _surrogates(chance: random.Random) -> str:
    """Halves of pairs alone, doubled and the wrong way round, which only a str can hold."""
    return "".join(chr(chance.randint(0xD800, 0xDFFF)) for _ in range(chance.randint(1, 6)))


def _bytes(chance: random.Random) -> str:
    data = chance.randbytes(chance.randint(1, 24))
    return data.decode("utf-8", chance.choice(["surrogateescape", "replace", "ignore"]))


def _broken(chance: random.Random) -> str:
    """UTF-8 cut in the middle of a character, overlong or beyond the last plane."""
    whole = _characters(chance, SCRIPTS, 8).encode()
    tail = chance.choice([b"", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xff"])
    return (whole[: chance.randint(0, len(whole))] + tail).decode("utf-8", "surrogateescape")


def _tower(chance: random.Random) -> str:
    base = chance.choice("aeoZ\u05d0\u0915")
    text = base + _drawn(chance, COMBINING, 40)
    return unicodedata.normalize(chance.choice(["NFC", "NFD", "NFKC"]), text)


def _family(chance: random.Random) -> str:
    return "\u200d".join(chance.choices(EMOJI, k=chance.randint(1, 10)))


def _mixed(chance: random.Random) -> str:
    return "".join(chance.choice(_ATOMS)(chance) for _ in range(chance.randint(2, 6)))


def _run(chance: random.Random) -> str:
    return chance.choice(["a", " ", "=", "9", "漢", "'", "\n", "é", "\U0001f600", "\x00"]) * (
        chance.randint(1, 120)
    )


def _long(chance: random.Random, most: int) -> str:
    unit = chance.choice(_ATOMS)(chance) or "a"
    size = chance.randint(most // 4, most)
    return (chance.choice([unit, "a", " ", "word ", unit + " "]) * size)[:size]


_ATOMS = (
    lambda c: _characters(c, SCRIPTS, 12),
    lambda c: _characters(c, PLANES, 6),
    lambda c: _drawn(c, SPACES, 6),
    lambda c: _drawn(c, BIDI, 4) + _characters(c, SCRIPTS, 4),
    lambda c: _drawn(c, INVISIBLE, 4),
    lambda c: c.choice(SPECIALS),
    lambda c: c.choice(APOSTROPHES),
    lambda c: str(c.choice([0, -1, 2**31, 2**63, 1e308, float("nan")])),
    _surrogates,
    _bytes,
    _broken,
    _tower,
    _family,
    _run,
)
_SHORT = (*_ATOMS, _mixed, _mixed, _mixed, _mixed, lambda c: "")


def any_text() -> st.SearchStrategy[str]:
    """Give hypothesis every string that Python can hold, lone surrogates included."""
    characters = st.characters(exclude_categories=())
    return st.one_of(
        st.text(characters, max_size=60),
        st.text(st.sampled_from(SPACES + BIDI + INVISIBLE + "a'"), max_size=40),
        st.lists(st.sampled_from([*SPECIALS, *APOSTROPHES, *EMOJI]), max_size=8).map("".join),
        st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape")),
        st.tuples(st.text(characters, min_size=1, max_size=3), st.integers(1, 3_000)).map(
            lambda pair: pair[0] * pair[1]
        ),
    )
