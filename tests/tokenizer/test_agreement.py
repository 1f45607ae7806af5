"""The ids are Hugging Face's, for every text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.tokenizer.offsets import encode_with_offsets

from .texts import AWKWARD, TEXTS

TRAIN = Path(__file__).parents[3] / "shared" / "data" / "train"
LINES = 100_000


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(ours, exported, original, text):
    ids = ours.encode(text)
    assert ids == exported.encode(text).ids == original.encode(text).ids


@settings(max_examples=2000, deadline=None)
@given(TEXTS)
def test_any_text(ours, exported, text):
    assert ours.encode(text) == exported.encode(text).ids


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_any_text_against_the_original_files(ours, original, text):
    assert ours.encode(text) == original.encode(text).ids


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_offsets(ours, exported, text):
    theirs = exported.encode(text)
    assert encode_with_offsets(ours, text) == (theirs.ids, theirs.offsets)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.sampled_from("\ud800\udbff\udc00\udfff a'"), max_size=40))
def test_each_lone_surrogate_is_a_replacement_character(ours, exported, text):
    readable = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
    assert ours.encode(text) == exported.encode(readable).ids
    assert encode_with_offsets(ours, text) == encode_with_offsets(ours, readable)
    assert ours.decode(ours.encode(text)) == readable


@pytest.mark.slow
@pytest.mark.parametrize("plane", range(0x11))
def test_every_code_point(ours, exported, plane):
    points = (p for p in range(plane << 16, plane + 1 << 16) if not 0xD800 <= p < 0xE000)
    while batch := [chr(point) for point in islice(points, 256)]:
        texts = [f"a{c}1 {c} '{c}s!{c}  {c}{c}\n{c}x" for c in batch]
        # Together first, which is quick; apart only to name the culprit.
        joined = "\n".join(texts)
        if ours.encode(joined) != exported.encode(joined).ids:
            wrong = [t for t in texts if ours.encode(t) != exported.encode(t).ids]
            pytest.fail(f"differs for {wrong or 'the batch'!r}")


@pytest.mark.slow
def test_training_lines(ours, exported):
    zstandard = pytest.importorskip("zstandard")
    files = sorted(TRAIN.glob("*.zst"))
    if not files:
        pytest.skip(f"no training data in {TRAIN}")
    seen = 0
    for file in files:
        with zstandard.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            for line in islice(lines, -(-LINES // len(files))):
                assert ours.encode(line) == exported.encode(line).ids, line
                seen += 1
    assert seen > len(files)
