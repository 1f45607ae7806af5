"""A limit gives the first ids of the whole encoding, from a bounded part of the text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common.errors import UsageError
from asterisk.tokenizer import BUILTIN, gpt2
from asterisk.tokenizer.bpe import BPETable, Merger
from asterisk.tokenizer.tokenizer import joined_surrogates

from .texts import AWKWARD, TEXTS


def _random(alphabet: str, length: int) -> str:
    return "".join(random.Random(alphabet).choices(alphabet, k=length))


GIANTS = {
    "one letter": lambda n: "a" * n,
    "spaces": lambda n: " " * n,
    "spaces and a word": lambda n: " " * (n - 1) + "x",
    "newlines": lambda n: "\n" * n,
    "dashes": lambda n: "-" * n,
    "letters": lambda n: _random("abcdefghijklmnopqrstuvwxyz", n),
    "punctuation": lambda n: _random("!?.,-=_#'", n),
    "digits": lambda n: _random("0123456789", n),
    "ideographs": lambda n: _random("的一是不了人我在有他中文", n),
    "mojibake": lambda n: ("ÃÂ" * n)[:n],
    "accents": lambda n: _random("éèêñöß", n),
    "emoji": lambda n: _random("🙂🙃👍🏽\u200d", n),
    "surrogates": lambda n: "\ud800" * n,
    "letters as surrogate pairs": lambda n: ("\ud835\udc00" * n)[:n],
    "contractions": lambda n: ("'re'r'll'l" * n)[:n],
    "sentences": lambda n: ("It's a small world, isn't it? " * (n // 30 + 1))[:n],
}


@pytest.mark.parametrize("limit", [0, 1, 7, 64, 512])
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(ours, text, limit):
    repeated = text * 400
    assert ours.encode(text, limit) == ours.encode(text)[:limit]
    assert ours.encode(repeated, limit) == ours.encode(repeated)[:limit]


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.integers(0, 40), st.integers(1, 30))
def test_any_text(ours, text, limit, times):
    text *= times
    assert ours.encode(text, limit) == ours.encode(text)[:limit]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(GIANTS)), st.integers(200, 3000), st.integers(1, 60))
def test_any_cut_of_a_giant(ours, kind, length, limit):
    text = GIANTS[kind](length)
    assert ours.encode(text, limit) == ours.encode(text)[:limit]


@pytest.mark.parametrize("kind", GIANTS)
def test_giants_as_hugging_face_has_them(ours, exported, kind):
    text = GIANTS[kind](100_000)
    readable = joined_surrogates(text)
    assert ours.encode(text, 512) == exported.encode(readable).ids[:512]


@pytest.mark.parametrize("kind", GIANTS)
def test_work_is_bounded_by_the_limit(kind, monkeypatch):
    merged = 0

    def counted(self, word, merge=Merger.__call__):
        nonlocal merged
        merged += len(word)
        return merge(self, word)

    monkeypatch.setattr(Merger, "__call__", counted)
    ours = gpt2()
    short, long = GIANTS[kind](200_000), GIANTS[kind](2_000_000)
    ids = ours.encode(short, 512)
    work, merged = merged, 0
    assert gpt2().encode(long, 512) == ids
    assert merged == work <= 512 * 128 * 4


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["abcdeinorst", "-=", "ÃÂ", "的一是", "a", "!?.'"]),
    st.randoms(use_true_random=False),
    st.integers(170, 600),
    st.integers(0, 300),
)
def test_certain_tokens_hold_whatever_follows(alphabet, random, length, more):
    merge = Merger(BPETable(BUILTIN.read_bytes()))
    word = "".join(random.choices(alphabet, k=length + more)).encode()
    tokens = merge.certain(word[:length], 1)
    assert merge(word)[: len(tokens)] == tokens


def test_a_negative_limit_is_refused(ours):
    with pytest.raises(UsageError):
        ours.encode("text", -1)
