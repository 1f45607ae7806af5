"""WordPiece from a mapped file: the ids are Hugging Face's, for every text."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common.errors import UsageError
from asterisk.tokenizer import open_tokenizer, wordpiece
from asterisk.tokenizer.build import unicode_facts
from asterisk.tokenizer.build import wordpiece as build
from asterisk.tokenizer.wordpiece import WordPiece

from .conftest import engine, ids_of
from .texts import AWKWARD, POINTS, SURROGATES, TEXTS, readable

UNCASED = {
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": True,
    "lowercase": True,
}
VARIANTS = {
    "uncased": UNCASED,
    "cased": {**UNCASED, "strip_accents": False, "lowercase": False},
    "uncased, accents kept": {**UNCASED, "strip_accents": False},
    "cased, accents stripped": {**UNCASED, "lowercase": False},
    "no clean-up": {**UNCASED, "clean_text": False},
    "ideographs in words": {**UNCASED, "handle_chinese_chars": False},
    "nothing": dict.fromkeys(UNCASED, False),
    "lower-cased first": {**UNCASED, "lowercase": False, "lowercase_first": True},
}
# All that moves, stays or vanishes when accents are stripped, and what stands beside it.
MARKS = (
    "aÀé \u0301\u0323\u0334\ufe0f\u1b44\u0e38\u302e\U00016ff0\U0001d165\U0001d15e"
    "\u0cc0\u0dddだ각가\u0345"
)
BERT_TEXTS = TEXTS | st.text(st.sampled_from(MARKS), max_size=12)


def _tokenizers(vocab, *, longest_word=100, lowercase_first=False, **options):
    """Ours and Hugging Face's over one vocabulary."""
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": longest_word,
        "vocab": vocab,
    }
    normalizers = [{"type": "BertNormalizer", **options}]
    if lowercase_first:
        normalizers.insert(0, {"type": "Lowercase"})
    size = max(vocab.values()) + 1
    ours = WordPiece(build(model, normalizers, size=size, prefix=[], suffix=[], pad=None))
    theirs = engine(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None,
            "decoder": None,
            "model": model,
        }
    )
    return ours, theirs


@pytest.fixture(scope="module")
def vocab(minilm):
    return json.loads((minilm / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]


@pytest.fixture(scope="module")
def characters():
    """A vocabulary that tells every character from every other, marks and ideographs too."""
    points = [*range(0x21, 0x2800), *range(0x302A, 0x3100), *range(0xA600, 0xAC80)]
    points += [*range(0xF900, 0xFE00), *range(0x1D100, 0x1D200)]
    tokens = [head + chr(point) for point in points for head in ("", "##")]
    return {token: i for i, token in enumerate(["[UNK]", *tokens])}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, characters):
    return _tokenizers(characters, **VARIANTS[request.param])


@pytest.fixture(scope="module", params=VARIANTS)
def real(request, vocab):
    return _tokenizers(vocab, **VARIANTS[request.param])


@pytest.fixture(scope="module")
def uncased(vocab):
    return _tokenizers(vocab, **UNCASED)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(real, text):
    ours, theirs = real
    assert ours.encode(text) == theirs.encode(text).ids


def test_shipped_texts(real, shipped):
    ours, theirs = real
    assert [ours.encode(text) for text in shipped] == ids_of(theirs, shipped)


@settings(max_examples=50, deadline=None)
@given(text=BERT_TEXTS)
def test_any_text(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(text).ids


@settings(max_examples=60, deadline=None)
@given(text=SURROGATES)
def test_a_surrogate_pair_is_its_character_and_a_lone_one_a_replacement_character(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode(readable(text)).ids


def test_a_pair_of_surrogates_is_the_emoji(uncased):
    ours, _ = uncased
    assert ours.encode("good \ud83d\udc4d") == ours.encode("good 👍")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "uncased",
        pytest.param("cased", marks=pytest.mark.campaign),
        pytest.param("no clean-up", marks=pytest.mark.campaign),
    ],
)
def test_every_code_point_alone_and_between_letters(characters, name):
    ours, theirs = _tokenizers(characters, **VARIANTS[name])
    points = iter(POINTS)
    while batch := [chr(point) for point in islice(points, 4096)]:
        texts = [f"{c} a{c}b" for c in batch]
        wrong = [
            (text, one, other)
            for text, one, other in zip(
                texts, map(ours.encode, texts), ids_of(theirs, texts), strict=True
            )
            if one != other
        ]
        assert not wrong


@pytest.mark.parametrize("first", ["\u1b44", "\u302e", "\u0301"])
@pytest.mark.parametrize("last", ["\u0334", "\U00016ff0", "\u0e38"])
def test_what_changes_places_with_a_mark(pair, first, last):
    ours, theirs = pair
    moving = [*unicode_facts()["combining"], *unicode_facts()["nfd"]]
    texts = [f"a{first}{c}{last}b" for c in moving]
    assert [ours.encode(text) for text in texts] == ids_of(theirs, texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uncased", pytest.param("cased", marks=pytest.mark.campaign)])
def test_training_lines(vocab, name, training_lines):
    ours, theirs = _tokenizers(vocab, **VARIANTS[name])
    assert [ours.encode(line) for line in training_lines] == ids_of(theirs, training_lines)


@pytest.mark.parametrize("length", [99, 100, 101, 5000])
def test_words_of_too_many_characters_are_unknown(uncased, length):
    ours, theirs = uncased
    for word in ("a" * length, "é" * length, "\u0301" * length, "中" * length, "x́" * length):
        text = f"the {word}, and"
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.encode(text, 4) == theirs.encode(text).ids[:4]


def test_the_longest_word_is_the_models():
    vocab = {"[UNK]": 0, "ab": 1, "##c": 2}
    ours, theirs = _tokenizers(vocab, longest_word=4, **UNCASED)
    assert ours.encode("abcc abccc") == theirs.encode("abcc abccc").ids == [1, 2, 2, 0]


def test_a_vocabulary_with_gaps_and_wide_ids():
    vocab = {"[UNK]": 70_000, "hello": 3, "##s": 100_000, "hell": 9}
    ours, theirs = _tokenizers(vocab, **UNCASED)
    text = "Hellos hello hells world"
    assert ours.encode(text) == theirs.encode(text).ids == [3, 100_000, 3, 9, 100_000, 70_000]
    assert ours.vocab_size == 100_001


@pytest.mark.parametrize("size", [1, 2, 3, 119_547])
def test_vocabularies_of_any_size(size):
    chance = random.Random(size)
    words = {"".join(chance.choices("abcdefghéあ", k=chance.randrange(1, 9))) for _ in range(size)}
    tokens = [*sorted(words), *(f"##{word}" for word in sorted(words))][: size - 1]
    vocab = {token: i for i, token in enumerate(["[UNK]", *tokens])}
    ours, theirs = _tokenizers(
        vocab,
        **UNCASED,
    )
    for _ in range(200):
        text = " ".join("".join(chance.choices("abcdefghéあ", k=9)) for _ in range(20))
        assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("name", ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "a [CLS]b"])
def test_the_name_of_a_special_token_is_plain_text(minilm, uncased, name):
    from asterisk.tokenizer.folder import read_tokenizer

    from_folder = read_tokenizer(minilm, "bert").open()
    assert from_folder.encode(name) == uncased[0].encode(name)
    assert not {0, 100, 101, 102, 103} & set(from_folder.encode(name))


@settings(max_examples=20, deadline=None)
@given(text=BERT_TEXTS | SURROGATES, times=st.integers(1, 40), limit=st.integers(0, 30))
def test_a_limit_gives_the_first_ids(pair, text, times, limit):
    ours, _ = pair
    assert ours.encode(text * times, limit) == ours.encode(text * times)[:limit]


def test_a_negative_limit_is_refused(uncased):
    with pytest.raises(UsageError):
        uncased[0].encode("text", -1)


@settings(max_examples=20, deadline=None)
@given(text=BERT_TEXTS | SURROGATES)
def test_words_join_to_the_text(pair, text):
    ours, _ = pair
    words = list(ours.words(text))
    assert "".join(word for word, _ in words) == text
    assert [token for _, tokens in words for token in tokens] == ours.encode(text)


def test_long_chunks_are_cut_beside_ideographs_and_punctuation(uncased):
    words = [word for word, _ in uncased[0].words("人" * 30 + " one-two-three-four-five-six-seven")]
    assert words[:30] == ["人"] * 30
    assert words[30:33] == [" one", "-", "two"]


GIANTS = {
    "one letter": "a",
    "a letter with a mark": "é",
    "spaces": " ",
    "marks": "\u0301",
    "marks that move": "\u1b44\u302e",
    "removed starters": "\ufe0f",
    "ideographs": "中",
    "dashes": "-",
    "control characters": "\x01",
    "surrogate pairs": "\ud83d\udc4d",
    "words": "It's a small world, isn't it? ",
    "lines": "word\n",
}


@pytest.mark.parametrize("kind", GIANTS)
def test_giants_as_hugging_face_has_them(uncased, kind):
    ours, theirs = uncased
    text = f"the {GIANTS[kind] * (50_000 // len(GIANTS[kind]))} end"
    ids = theirs.encode(readable(text)).ids
    assert ours.encode(text) == ids
    for limit in (1, 2, 3, 512):
        assert ours.encode(text, limit) == ids[:limit]


MEASURE = """
import re, sys, time
from pathlib import Path
from asterisk.tokenizer import open_tokenizer

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

ours = open_tokenizer(sys.argv[1])
ours.encode("a \\ud83d\\udc4d é")
for unit in sys.argv[2:]:
    unit = unit.encode().decode("unicode_escape")
    text = unit * (10_000_000 // len(unit))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = peak(), time.process_time()
    ours.encode(text, 512)
    print(time.process_time() - start, peak() - before)
    del text
"""


@pytest.mark.slow
def test_ten_million_characters_take_little_time_and_memory(uncased, tmp_path, python):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(uncased[0]._table.data)
    units = [unit.encode("unicode_escape").decode() for unit in GIANTS.values()]
    done = python(MEASURE, path, *units)
    assert done.returncode == 0, done.stderr
    for kind, line in zip(GIANTS, done.stdout.splitlines(), strict=True):
        seconds, more = map(float, line.split())
        assert seconds < 10, kind
        assert more < 50_000_000, kind  # a copy of the longest chunk, and next to nothing


def test_several_threads(uncased, monkeypatch):
    ours, _ = uncased
    monkeypatch.setattr(wordpiece, "_CACHED_CHUNKS", 16)  # so that the memories are emptied
    monkeypatch.setattr(wordpiece, "_CACHED_POINTS", 16)
    texts = AWKWARD * 20
    expected = [ours.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        for ids in threads.map(lambda _: [ours.encode(text) for text in texts], range(16)):
            assert ids == expected


def test_the_memories_are_bounded(vocab):
    ours, _ = _tokenizers(vocab, **UNCASED)
    ours.encode(" ".join(map(str, range(50_000))))
    ours.encode("".join(map(chr, range(0x80, 0x9000))))
    assert len(ours._chunks) <= wordpiece._CACHED_CHUNKS
    assert len(ours._chunks._composed) <= wordpiece._CACHED_POINTS


def test_it_pickles_as_its_path_or_whole(uncased, tmp_path):
    ours, _ = uncased
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(ours._table.data)
    mapped = open_tokenizer(path)
    assert len(pickle.dumps(mapped)) < 1000
    for tokenizer in (ours, mapped):
        assert pickle.loads(pickle.dumps(tokenizer)).encode("Hello, world") == [7592, 1010, 2088]


def test_opening_imports_the_standard_library_alone(uncased, tmp_path):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(uncased[0]._table.data)
    code = (
        "import sys; from asterisk.tokenizer import open_tokenizer;"
        f"open_tokenizer({str(path)!r}).encode('héllo wörld', 8);"
        "assert not {'unicodedata', 'json', 'dataclasses'} & set(sys.modules);"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(result.stdout.split()) <= {"__main__", "asterisk"}
