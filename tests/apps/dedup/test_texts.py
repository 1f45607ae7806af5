"""When two texts are the same, when their numbers contradict each other, and the spool."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.apps.dedup.texts import Spool, collect, contradict, digest, normalize, numbers
from asterisk.apps.dedup.vectors import RowBuffer
from asterisk.common.errors import OutputError

FIGURES = st.lists(st.integers(0, 10**6).map(str), max_size=6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It’s “done” – now", 'it\'s "done" - NOW'),
        ("Straße\tund\u00a0 Weg\n", "STRASSE und Weg"),
        ("ﬁne\u00adly ２０", "finely 20"),
        ("a\u200bb\ufeff", "ab"),
    ],
)
def test_typesetting_makes_no_difference(one, other):
    assert digest(one) == digest(other)
    assert normalize(normalize(one)) == normalize(one)


@pytest.mark.parametrize(("one", "other"), [("C++", "C"), ("3 dead", "7 dead"), ("ab", "a b")])
def test_punctuation_numbers_and_words_do(one, other):
    assert digest(one) != digest(other)


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\u00a0"])
def test_an_empty_text_has_no_digest(text):
    assert digest(text) == b""


@given(st.lists(st.sampled_from(["a", "b", "c", "", " "]), max_size=20))
def test_copies_are_those_of_a_dictionary(texts):
    with Spool() as spool:
        copies = collect(texts, spool)
        assert list(spool) == texts
    firsts = {}
    for row, text in enumerate(texts):
        if text.strip():
            firsts.setdefault(text, []).append(row)
    assert [copies.of(number) for number in range(len(copies.distinct))] == list(firsts.values())
    assert copies.distinct.tolist() == [rows[0] for rows in firsts.values()]
    assert copies.empty == sum(not text.strip() for text in texts)
    assert copies.copies == len(texts) - copies.empty - len(firsts)


def of(figures):
    return numbers(" of ".join(figures))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("none at all", ()),
        ("1,000 and 1000", ("1000", "1000")),
        ("2.5% in 2019, 12 more", ("12", "2019", "25")),
        ("On 07.03. at 00:00", ("0", "703")),
        ("covid19, ２０ and x²", ("19", "2", "20")),
    ],
)
def test_numbers_of_a_text(text, expected):
    assert numbers(text) == tuple(sorted(expected))


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_case_and_punctuation_change_no_number(text):
    assert numbers(text) == numbers(text.upper()) == numbers(f"“{text}” – …")
    assert numbers(re.sub(r"[^\w\s]", "", ascii_only(text))) == numbers(ascii_only(text))


def ascii_only(text):
    """Only what survives in ASCII: elsewhere compatibility forms make signs of letters."""
    return text.encode("ascii", "ignore").decode()


@given(FIGURES, FIGURES)
def test_what_one_side_alone_has_is_no_contradiction(own, more):
    assert not contradict(of(own), of(own + more))
    assert not contradict(of(own + more), of(own))
    assert not contradict(of(own), of(own[::-1]))


@given(FIGURES, st.data())
def test_a_changed_number_is_a_contradiction(figures, data):
    figures = [*figures, "17"]
    place = data.draw(st.integers(0, len(figures) - 1))
    other = data.draw(st.integers(0, 10**6).map(str).filter(lambda one: one != figures[place]))
    changed = [*figures[:place], other, *figures[place + 1 :]]
    assert contradict(of(figures), of(changed))
    assert contradict(of(changed), of(figures))


@given(FIGURES, FIGURES)
def test_contradiction_is_that_of_sorted_lists(one, other):
    left, lacking = list(of(other)), 0
    for figure in of(one):
        if figure in left:
            left.remove(figure)
        else:
            lacking += 1
    assert contradict(of(one), of(other)) == (lacking > 0 and len(left) > 0)


@pytest.mark.parametrize("kind", ["spool", "rows"])
def test_a_full_disk_is_one_line(kind, monkeypatch):
    def full():
        return open("/dev/full", "r+b", buffering=0)  # noqa: PTH123

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="temporary file"):
        fill(kind)


def fill(kind):
    if kind == "spool":
        with Spool() as spool:
            spool.append("text")
    else:
        RowBuffer(np.int8, 0).append(np.zeros((2, 2), np.int8))
