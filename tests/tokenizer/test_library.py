"""Other tokenizers by Hugging Face's library: its ids, under our rules."""

from __future__ import annotations

import json
import pickle
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common.errors import ArtifactError, MissingExtra, UsageError
from asterisk.tokenizer import open_tokenizer
from asterisk.tokenizer.folder import read_tokenizer

from .conftest import engine, ids_of
from .texts import AWKWARD, SURROGATES, TEXTS, readable


@pytest.fixture(scope="module")
def folder(unigram, tmp_path_factory):
    path = tmp_path_factory.mktemp("unigram")
    (path / "tokenizer.json").write_text(json.dumps(unigram), "utf-8")
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    return path


@pytest.fixture(scope="module")
def source(folder):
    return read_tokenizer(folder, "xlm-roberta")


@pytest.fixture(scope="module")
def pair(source):
    return source.open(), engine(source.definition)


def test_what_it_says_of_itself(pair):
    ours, theirs = pair
    assert (ours.prefix, ours.suffix, ours.pad_id) == ((0,), (2,), 1)
    assert ours.vocab_size == theirs.get_vocab_size()
    assert ours.with_special_tokens([5, 6]) == [0, 5, 6, 2]


def test_shipped_texts(pair, shipped):
    ours, theirs = pair
    assert [ours.encode(text) for text in shipped] == ids_of(theirs, shipped)


@settings(max_examples=20, deadline=None)
@given(text=TEXTS | SURROGATES)
def test_any_text(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(readable(text), add_special_tokens=False).ids
    words = list(ours.words(text))
    assert "".join(word for word, _ in words) == text
    assert [token for _, tokens in words for token in tokens] == ours.encode(text)


def test_words_are_the_pre_tokenizers(pair):
    assert [word for word, _ in pair[0].words("one  two\nthree ")] == ["one", "  two", "\nthree "]


def test_a_special_token_is_read_out_of_a_text_only_where_the_library_does(pair):
    # Its Unigram model knows the names as pieces like any other, split_special_tokens or not.
    ours, theirs = pair
    for text in ("<s>", "a </s>b", "<pad>", "x <mask>"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@settings(max_examples=20, deadline=None)
@given(text=TEXTS | SURROGATES, times=st.integers(1, 60), limit=st.integers(0, 30))
def test_a_limit_gives_the_first_ids(pair, text, times, limit):
    ours, _ = pair
    assert ours.encode(text * times, limit) == ours.encode(text * times)[:limit]


@pytest.mark.parametrize("normalizer", ["NFKC", "Strip", "Prepend"])
@settings(max_examples=20, deadline=None)
@given(text=TEXTS, times=st.integers(1, 60), limit=st.integers(0, 30))
def test_a_limit_under_other_normalizers(source, normalizer, text, times, limit):
    options = {"Strip": {"strip_left": True, "strip_right": True}, "Prepend": {"prepend": "a b"}}
    part = {"type": normalizer, **options.get(normalizer, {})}
    data = json.dumps({**source.definition, "normalizer": part}).encode()
    ours = type(source.open())(data)
    assert ours._parts_words is (normalizer == "NFKC")
    assert ours.encode(text * times, limit) == ours.encode(text * times)[:limit]


@pytest.mark.parametrize("unit", ["word and ", "日本語", "a", " ", "a\n", "\u0301"])
def test_ten_million_characters_take_little_time(pair, unit):
    text = unit * (10_000_000 // len(unit))
    start = time.process_time()
    assert len(pair[0].encode(text, 512)) <= 512
    assert time.process_time() - start < 10


def test_a_negative_limit_is_refused(pair):
    with pytest.raises(UsageError):
        pair[0].encode("text", -1)


def test_it_opens_from_its_file_and_pickles(source, tmp_path):
    name, data = source.compile()
    assert name == "tokenizer.json"
    path = tmp_path / name
    path.write_bytes(data)
    mapped = open_tokenizer(path)
    assert len(pickle.dumps(mapped)) < 1000
    for ours in (mapped, source.open()):
        again = pickle.loads(pickle.dumps(ours))
        for text in AWKWARD:
            assert again.encode(text) == ours.encode(text)


@pytest.mark.parametrize(
    "text", ["{}", '{"version": "1.0"', '{"model": {"type": "New"}}', "{" * 999]
)
def test_files_that_the_library_cannot_read_are_refused(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        open_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_a_character_map_that_makes_no_sense_is_refused(source, tmp_path):
    part = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**source.definition, "normalizer": part}))
    with pytest.raises(ArtifactError):
        open_tokenizer(path)


def test_without_the_library_its_extra_is_named(source, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(source.compile()[1])
    for attempt in (
        lambda: open_tokenizer(path),
        source.open,
        lambda: read_tokenizer(folder, "xlm-roberta"),
    ):
        with pytest.raises(MissingExtra, match=r"asterisk-edge\[tokenizers\]"):
            attempt()
