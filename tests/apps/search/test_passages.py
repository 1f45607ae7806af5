"""Passages: everything is covered, nothing is too long, and offsets are exact."""

from __future__ import annotations

import base64
import random
import tempfile
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.apps.search.passages import LONGEST_TITLE, Lengths, fit_lengths, passages, with_title
from asterisk.common.errors import UsageError
from asterisk.tokenizer import Tokenizer, gpt2
from asterisk.tokenizer.folder import read_tokenizer
from asterisk.tokenizer.library import LibraryTokenizer

TOKENIZER = gpt2()


def wordpiece() -> Tokenizer:
    """BERT's kind over a few words and every letter, with accents and case taken off."""
    letters = "abcdefghijklmnopqrstuvwxyz.?!東京は。"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "short", "one", "word", "is", "yes"]
    names += [*letters, *(f"##{letter}" for letter in letters)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
        return read_tokenizer(Path(folder), "bert").open()


def unigram() -> Tokenizer:
    """XLM-R's kind, by the library: a character may be many tokens after NFKC."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz.?!東京は。é"))
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁short", -3.0), ("▁word", -3.0), ("word", -4.0)]
    made = tokenizers.Tokenizer(
        tokenizers.models.Unigram(pieces + [(letter, -5.0) for letter in letters], 0)
    )
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return LibraryTokenizer(made.to_str().encode())


KINDS = {"byte-level BPE": gpt2, "WordPiece": wordpiece, "Unigram": unigram}
SENTENCES = st.sampled_from(
    [
        "A short one. ",
        "Is it? ",
        "Yes!\n\n",
        "word " * 30,
        "x" * 300,
        "東京は。",
        "é̂" * 20,
        " \n ",
        "🧑‍🚀🧑‍🚀 ",
    ]
)
TEXTS = st.one_of(st.text(max_size=400), st.lists(SENTENCES, max_size=25).map("".join))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


@given(TEXTS, st.integers(8, 60), st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_passages_cover_the_text_within_their_limit(tokenizer, text, longest, overlap):
    found = passages(text, tokenizer, longest=longest, overlap=overlap)
    covered = bytearray(len(text))
    for passage in found:
        part = text[passage.start : passage.end]
        assert part
        assert part == part.strip()
        assert len(tokenizer.encode(part)) <= longest
        covered[passage.start : passage.end] = b"\1" * len(part)
    assert all(covered[i] or sign.isspace() for i, sign in enumerate(text))
    assert [(p.start, p.end) for p in found] == sorted({(p.start, p.end) for p in found})
    assert bool(found) == bool(text.strip())
    for one, other in pairwise(found):
        assert one.end < other.end
        shared = text[other.start : one.end]
        assert len(tokenizer.encode(shared)) <= overlap + 2


def test_a_text_that_fits_is_one_passage():
    assert [(p.start, p.end) for p in passages("  One. Two.\n", TOKENIZER)] == [(2, 11)]


def test_sentences_are_kept_whole_and_shared():
    sentences = [f"Sentence number {i} has a few words in it. " for i in range(40)]
    text = "".join(sentences)
    found = passages(text, TOKENIZER, longest=60, overlap=15)
    parts = [text[p.start : p.end] for p in found]
    assert len(parts) > 5
    assert all(part.startswith("Sentence") and part.endswith(".") for part in parts)
    for one, other in pairwise(parts):
        assert one.rsplit("Sentence", 1)[1] in other


def test_settings_that_cannot_be_meant_are_refused():
    for longest, overlap in ((7, 0), (20, 20), (20, -1)):
        with pytest.raises(UsageError):
            passages("text", TOKENIZER, longest=longest, overlap=overlap)


def test_a_large_text_takes_time_in_proportion():
    text = "A sentence of a few words. " * 4_000 + "y" * 20_000 + "." * 20_000 + "\n" * 20_000
    found = passages(text, TOKENIZER)
    assert found[-1].end > 144_000


SIZE = 50_000
ENDLESS = {
    "x": "x" * SIZE,
    "base64": base64.b64encode(random.Random(0).randbytes(SIZE // 6)).decode(),
    "spaces": "a" + " " * SIZE + "b",
    "newlines": "a" + "\n" * SIZE + "b",
    "stops": "." * (SIZE // 5),
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_text_without_words_takes_little_memory(text):
    tracemalloc.start()
    try:
        found = passages(text, TOKENIZER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Of one character in a row there are a few hundred in a passage, of base64 about a hundred.
    assert len(found) <= len(text) // 80 + 2
    assert peak < 2 * len(text) + 200 * len(found) + 2_000_000
    assert all(
        len(TOKENIZER.encode(text[p.start : p.end])) <= 128 for p in found[:: 1 + len(found) // 50]
    )
    covered = 0
    for passage in found:
        assert not text[covered : passage.start].strip()
        covered = passage.end
    assert covered == len(text)


def test_a_long_sentence_is_cut_where_its_words_end():
    text = " ".join(["alpha", "beta", "gamma", "delta"] * 1_500)
    for passage in passages(text, TOKENIZER):
        assert set(text[passage.start : passage.end].split()) <= {"alpha", "beta", "gamma", "delta"}


def test_titles_stand_before_the_text_once_and_are_never_long():
    assert with_title("Title", "Text", TOKENIZER) == "Title\nText"
    assert with_title("", "Text", TOKENIZER) == "Text"
    assert with_title("Text", "Text and more", TOKENIZER) == "Text and more"
    long = "an endless title " * 100
    title = with_title(long, "Text", TOKENIZER).removesuffix("\nText")
    assert long.startswith(title)
    assert 40 <= len(TOKENIZER.encode(title)) <= LONGEST_TITLE


def test_a_title_and_a_passage_fit_into_what_a_model_reads():
    assert fit_lengths(510) == Lengths() == Lengths(128, 32, 48)
    for room in range(11, 300):
        found = fit_lengths(room)
        assert found.title + 1 + found.longest <= room
        assert found.longest >= 8
        assert found.overlap < found.longest
    assert fit_lengths(14) == Lengths(10, 2, 3)
    assert fit_lengths(510, 60, 10) == Lengths(60, 10, 48)
    for room in (10, 0, -3):
        with pytest.raises(UsageError, match="too few to search by, 11 are needed"):
            fit_lengths(room)


def test_a_title_of_one_long_word_is_left_out():
    assert with_title("x" * 5_000, "Text", gpt2(), 3) == "Text"
