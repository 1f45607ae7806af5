"""The ids are Hugging Face's, for every text."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings

from asterisk.tokenizer.bpe import encode_with_offsets

from .conftest import ids_of
from .texts import AWKWARD, POINTS, SURROGATES, TEXTS, readable


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(ours, exported, original, text):
    ids = ours.encode(text)
    assert ids == exported.encode(text).ids == original.encode(text).ids


@settings(max_examples=250, deadline=None)
@given(TEXTS)
def test_any_text(ours, exported, text):
    assert ours.encode(text) == exported.encode(text).ids


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_any_text_against_the_original_files(ours, original, text):
    assert ours.encode(text) == original.encode(text).ids


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_offsets(ours, exported, text):
    theirs = exported.encode(text)
    assert encode_with_offsets(ours, text) == (theirs.ids, theirs.offsets)


@settings(max_examples=60, deadline=None)
@given(SURROGATES)
def test_a_surrogate_pair_is_its_character_and_a_lone_one_a_replacement_character(
    ours, exported, text
):
    assert ours.encode(text) == exported.encode(readable(text)).ids
    assert ours.decode(ours.encode(text)) == readable(text)
    words = list(ours.words(text))
    assert "".join(word for word, _ in words) == text
    assert [token for _, tokens in words for token in tokens] == ours.encode(text)


def test_a_token_of_a_surrogate_pair_covers_both(ours):
    ids, spans = encode_with_offsets(ours, "a \ud83d\udc4d!")
    assert ids == ours.encode("a 👍!")
    assert spans == [(0, 1), *[(1, 4)] * (len(ids) - 3), (2, 4), (4, 5)]


@pytest.mark.slow
def test_every_code_point(ours, exported):
    points = iter(POINTS)
    while batch := [chr(point) for point in islice(points, 256)]:
        texts = [f"a{c}1 {c} '{c}s!{c}  {c}{c}\n{c}x" for c in batch]
        # Together first, which is quick; apart only to name the culprit.
        joined = "\n".join(texts)
        if ours.encode(joined) != exported.encode(joined).ids:
            wrong = [t for t in texts if ours.encode(t) != exported.encode(t).ids]
            pytest.fail(f"differs for {wrong or 'the batch'!r}")


@pytest.mark.slow
def test_training_lines(ours, exported, training_lines):
    assert [ours.encode(line) for line in training_lines] == ids_of(exported, training_lines)
