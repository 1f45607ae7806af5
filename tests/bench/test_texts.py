"""The texts that are timed."""

from __future__ import annotations

import pytest

from asterisk.bench.plan import BUCKETS, LONG
from asterisk.bench.prepare import choose, cut
from asterisk.common.default_paths import shipped_checkpoint
from asterisk.model.checkpoint import load
from asterisk.tokenizer import gpt2


@pytest.mark.parametrize("name", ["asterisk-256", "asterisk-384"])
def test_every_text_of_a_bucket_is_computed_with_its_number_of_tokens(name):
    """Byte-level BPE without special tokens, WordPiece with two."""
    tokenizer = load(shipped_checkpoint().parent / name).tokenizer.open()

    def size(text):
        return len(tokenizer.with_special_tokens(tokenizer.encode(text)))

    chosen = choose(tokenizer)
    assert tuple(chosen.buckets) == BUCKETS
    for tokens, some in chosen.buckets.items():
        assert {size(text) for text in some} == {tokens}
        assert len(set(some)) == len(some) >= 64
    assert size(chosen.long) == LONG
    assert len({size(text) for text in chosen.mixed}) > 10
    assert max(map(size, chosen.mixed)) <= 128


def test_a_text_is_cut_at_a_word_or_not_at_all():
    tokenizer = gpt2()
    assert cut(tokenizer, "One two three four", 2) == "One two"
    assert cut(tokenizer, "One two", 3) is None
    assert cut(tokenizer, "antidisestablishmentarianism", 2) is None
