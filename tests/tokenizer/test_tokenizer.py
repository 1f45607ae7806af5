"""Ids back to text, other facts of the vocabulary, threads, and what opening costs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common.errors import InputError
from asterisk.tokenizer import bpe

from .texts import AWKWARD, TEXTS


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_decoding_gives_the_text_back(ours, text):
    assert ours.decode(ours.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255) | st.integers(0, 50258), max_size=30))
def test_any_ids_decode_as_hugging_face_decodes_them(ours, exported, ids):
    assert ours.decode(ids) == exported.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("token", [-1, 50259, 1 << 40])
def test_ids_outside_the_vocabulary_are_refused(ours, token):
    with pytest.raises(InputError):
        ours.decode([1, token])
    with pytest.raises(InputError):
        ours.token_bytes(token)


def test_the_vocabulary(ours, exported):
    assert (ours.vocab_size, ours.pad_id, ours.mask_id) == (50259, 50257, 50258)
    assert exported.get_vocab_size(with_added_tokens=True) == ours.vocab_size
    assert exported.token_to_id("[PAD]") == ours.pad_id
    assert exported.token_to_id("[MASK]") == ours.mask_id
    assert [ours.token_bytes(t) for t in range(50256, 50259)] == [
        b"<|endoftext|>",
        b"[PAD]",
        b"[MASK]",
    ]


def test_merges_make_the_tokens_in_order(ours):
    for token, (left, right) in enumerate(ours.merges(), 256):
        assert ours.token_bytes(token) == ours.token_bytes(left) + ours.token_bytes(right)
    assert token == 50255


def test_words_join_to_the_text(ours):
    for text in AWKWARD:
        pairs = list(ours.words(text))
        assert "".join(word for word, _ in pairs) == text
        assert [token for _, tokens in pairs for token in tokens] == ours.encode(text)


def test_the_memory_of_words_is_bounded(ours):
    for start in range(0, 50_000, 1000):
        ours.encode(" ".join(map(str, range(start, start + 1000))))
    ours.encode("".join(map(chr, range(0x80, 0x9000))))
    assert len(ours._words) <= bpe._CACHED_WORDS
    assert len(ours._split) <= bpe._CACHED_POINTS


def test_several_threads(ours, monkeypatch):
    monkeypatch.setattr(bpe, "_CACHED_WORDS", 16)  # so that the memory is emptied all the time
    texts = AWKWARD * 20
    expected = [ours.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        for ids in threads.map(lambda _: [ours.encode(text) for text in texts], range(16)):
            assert ids == expected


def test_it_pickles_as_its_path(ours):
    data = pickle.dumps(ours)
    assert len(data) < 1000
    assert pickle.loads(data).encode("Hello, world") == ours.encode("Hello, world")


def test_opening_imports_the_standard_library_alone():
    code = (
        "import sys; from asterisk.tokenizer import gpt2;"
        "gpt2().encode('héllo wörld', 8);"
        "assert 'unicodedata' not in sys.modules;"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(result.stdout.split()) <= {"__main__", "asterisk"}
