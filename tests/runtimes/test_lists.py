"""Lists of texts over several lanes: each text once, in its place; an error ends them all."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.common.errors import InputError, UsageError
from asterisk.model.config import ModelConfig
from asterisk.runtimes.runtime import Runtime

SIZE = 4


class Words:
    """A tokenizer: one id a letter, nothing around a text."""

    prefix = suffix = ()

    def encode(self, text, limit):
        return [ord(letter) % 50 for letter in text[:limit]]


class Count:
    """An engine that gives the sum, the number and the first of its ids."""

    format = "count"

    def __init__(self):
        self.runs = 0
        self.threads = set()

    def run(self, ids):
        self.runs += 1
        self.threads.add(threading.get_ident())
        return np.array([sum(ids) + 1, len(ids), ids[0], 1], np.float32)

    def close(self):
        pass


def runtime(lanes):
    config = ModelConfig(vocab_size=50, hidden_size=SIZE, num_layers=1, num_heads=1)
    return Runtime([Count() for _ in range(lanes)], Words(), config, "f" * 64)


@given(st.lists(st.text(min_size=1, max_size=40), max_size=60), st.integers(1, 4))
def test_every_text_in_its_place(texts, lanes):
    expected = [
        [sum(ids) + 1, len(ids), ids[0], 1]
        for text in texts
        for ids in (Words().encode(text, 512),)
    ]
    with runtime(lanes) as it:
        vectors = it.encode(texts, normalize=False)
    assert vectors.shape == (len(texts), SIZE)
    assert vectors.tolist() == expected


def test_an_error_in_one_lane_ends_all():
    with runtime(3) as it:
        with pytest.raises(InputError, match="empty"):
            it.encode([*["longer"] * 10, "", *["longest"] * 10])
        with pytest.raises(UsageError, match="string"):
            it.encode(["a", 3])
        assert it.encode(["after it"]).shape == (1, SIZE)


def test_what_is_left_after_an_error_is_not_embedded():
    """An empty text is the shortest, so this one, which is refused as too long, comes first."""
    with runtime(2) as it:
        with pytest.raises(InputError, match="more than"):
            it.encode(["a" * 600, *["short"] * 5_000], on_long="error")
        assert sum(engine.runs for engine in it._engines) < 5_000
