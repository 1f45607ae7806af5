"""The texts that are timed."""

from __future__ import annotations

import pytest

from asterisk.bench.plan import BUCKETS, LONG
from asterisk.bench.texts import choose, cut
from asterisk.tokenizer import gpt2


@pytest.fixture(scope="module")
def tokenizer():
    return gpt2()


def test_every_text_of_a_bucket_has_its_number_of_tokens(tokenizer):
    chosen = choose(tokenizer)
    assert tuple(chosen.buckets) == BUCKETS
    for tokens, some in chosen.buckets.items():
        assert {len(tokenizer.encode(text)) for text in some} == {tokens}
        assert len(set(some)) == len(some) >= 64
    assert len(tokenizer.encode(chosen.long)) == LONG
    assert len({len(tokenizer.encode(text)) for text in chosen.mixed}) > 10


def test_a_text_is_cut_at_a_word_or_not_at_all(tokenizer):
    assert cut(tokenizer, "One two three four", 2) == "One two"
    assert cut(tokenizer, "One two", 3) is None
    assert cut(tokenizer, "antidisestablishmentarianism", 2) is None
