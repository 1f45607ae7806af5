"""Byte-level BPE over other vocabularies than GPT-2's, as RoBERTa's are."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.tokenizer import ByteLevelBPE
from asterisk.tokenizer.folder import read_tokenizer
from asterisk.tokenizer.huggingface import CHARACTERS

from .conftest import engine, ids_of
from .texts import AWKWARD, SURROGATES, TEXTS, readable


@pytest.fixture(scope="module")
def source(byte_level, tmp_path_factory):
    return _read(byte_level, tmp_path_factory.mktemp("roberta"))


def _read(definition, folder):
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return read_tokenizer(folder, "roberta")


@pytest.fixture(scope="module")
def pair(source):
    return source.open(), engine(source.definition)


def test_what_it_says_of_itself(pair, byte_level):
    ours, theirs = pair
    assert isinstance(ours, ByteLevelBPE)
    assert (ours.prefix, ours.suffix, ours.vocab_size) == ((0,), (2,), theirs.get_vocab_size())
    vocab = theirs.get_vocab()
    names = {name: vocab[name] for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
    assert {name: ours.token_bytes(i).decode() for name, i in names.items()} == {
        n: n for n in names
    }
    spelt = {i: token for token, i in vocab.items()}
    merges = [[spelt[left], spelt[right]] for left, right in ours.merges()]
    assert merges == byte_level["model"]["merges"]


def test_shipped_texts(pair, shipped):
    ours, theirs = pair
    assert [ours.encode(text) for text in shipped] == ids_of(theirs, shipped)


@settings(max_examples=50, deadline=None)
@given(text=TEXTS | SURROGATES, times=st.integers(1, 30), limit=st.integers(0, 30))
def test_any_text(pair, text, times, limit):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(readable(text), add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) == readable(text)
    assert ours.encode(text * times, limit) == ours.encode(text * times)[:limit]


def test_it_pickles_whole(pair):
    again = pickle.loads(pickle.dumps(pair[0]))
    for text in AWKWARD:
        assert again.encode(text) == pair[0].encode(text)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "byte_level_bpe"),
        ({"fuse_unk": True}, "byte_level_bpe"),
        ({"ignore_merges": True}, "library"),
        ({"end_of_word_suffix": "</w>"}, "library"),
        ({"merges": []}, "library"),
    ],
    ids=str,
)
def test_what_the_mapped_form_cannot_hold_is_the_librarys(byte_level, tmp_path, change, kind):
    definition = {**byte_level, "model": {**byte_level["model"], **change}}
    if "end_of_word_suffix" in change:
        definition["model"]["merges"] = []
    source = _read(definition, tmp_path)
    assert source.kind == kind
    theirs = engine(definition)
    ours = source.open()
    for text in AWKWARD:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_two_merges_that_make_one_token_are_the_librarys(tmp_path):
    vocab = {character: i for i, character in enumerate(CHARACTERS)}
    vocab |= {"ab": 256, "bc": 257, "abc": 258}
    model = {
        "type": "BPE",
        "vocab": vocab,
        "merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]],
    }
    definition = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    assert _read(definition, tmp_path).kind == "library"
    definition["model"] = {**model, "merges": model["merges"][:3]}
    assert _read(definition, tmp_path).kind == "byte_level_bpe"
