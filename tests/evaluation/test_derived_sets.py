"""Long sets: their lengths, who asks for what, and that training saw none of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asterisk.common.corpus import held_out
from asterisk.common.errors import InputError
from asterisk.evaluation import derived_sets, sets
from asterisk.evaluation.derived_sets import LONG, SHORT, make_dev, make_long
from asterisk.tokenizer import gpt2

from .conftest import SUBJECTS, sentence, write, write_retrieval


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("source") / "eval"
    write_retrieval(root / "ret_news", random, documents=120, words=60)
    kinds = list(SUBJECTS)
    for part, count in (("train", 90), ("test", 60)):
        write(
            root / "posts" / f"{part}.tsv",
            [(kinds[i % 3], sentence(random, kinds[i % 3], 45) + f" {i}") for i in range(count)],
        )
    write(root / "short" / "test.tsv", [("a", "short text")] * 3)
    return root


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    """The long sets of ``source``, and their sizes."""
    out = tmp_path_factory.mktemp("made") / "long"
    return out, make_long(out, [source])


def tokens(text: str) -> int:
    return len(gpt2().encode(text))


def test_digests_are_long_and_their_heads_short(source, made):
    out, sizes = made
    facts = json.loads((out / "long.json").read_text())
    assert facts["sets"] == sizes
    whole, early, late = sets.load(out / "ret_long", "test").sets
    (head,) = sets.load(out / "ret_long_head", "test").sets
    assert (early.name, late.name, head.name) == (
        "ret_long:early",
        "ret_long:late",
        "ret_long_head:early",
    )
    assert all(SHORT < tokens(text) <= LONG for text in whole.documents)
    assert all(tokens(text) <= SHORT for text in head.documents)
    assert len(head.documents) == len(whole.documents) == sizes["ret_long"]
    assert (head.queries, head.relevant) == (early.queries, early.relevant)
    assert len(early) + len(late) <= len(whole) <= 120
    assert early.queries
    assert late.queries
    originals = sets.load(source / "ret_news", "test").sets[0]
    text_of = dict(
        zip(
            originals.queries,
            (originals.documents[next(iter(gains))] for gains in originals.relevant),
            strict=True,
        )
    )
    for each, is_late in ((early, False), (late, True)):
        for query, gains in zip(each.queries, each.relevant, strict=True):
            (document,) = gains
            assert text_of[query] in whole.documents[document]
            assert (text_of[query] in head.documents[document]) != is_late
            before, _, _ = whole.documents[document].partition(text_of[query])
            assert (tokens(before) >= SHORT) == is_late or not before


def test_every_text_stands_once(made):
    whole = sets.load(made[0] / "ret_long", "test").sets[0]
    names = [word for text in whole.documents for word in text.split() if word[1:].isdigit()]
    assert len(names) == len(set(names)) > 90


def test_labelled_texts_keep_their_label(made):
    for name, longest in (("long_posts", LONG), ("long_posts_head", SHORT)):
        (found,) = sets.load(made[0] / name, "test").sets
        for text, label in zip(found.texts, found.labels, strict=True):
            others = {word for kind in SUBJECTS if kind != label for word in SUBJECTS[kind]}
            assert not others & set(text.split())
            assert tokens(text) <= longest
        assert found.train
        assert not set(found.train) & set(found.texts)


def test_the_same_seed_makes_the_same_sets(source, made, tmp_path):
    for name, seed in (("b", 0), ("c", 1)):
        make_long(tmp_path / name, [source], seed=seed)
    folders = (made[0], tmp_path / "b", tmp_path / "c")
    a, b, c = ((folder / "ret_long" / "corpus.tsv").read_text() for folder in folders)
    assert a == b != c


def test_nothing_to_join_leaves_nothing(tmp_path):
    write(tmp_path / "only" / "set" / "test.tsv", [("a", "b")])
    with pytest.raises(InputError, match="no dev set has texts to join"):
        make_long(tmp_path / "long", [tmp_path / "only"], split="dev")
    assert not (tmp_path / "long").exists()


@pytest.fixture
def corpus(tmp_path):
    random = np.random.default_rng(2)
    folder = tmp_path / "train"
    rows = [(f"title {i}", sentence(random, "money", 40) + f" p{i}") for i in range(2_000)]
    write(folder / "pairs.tsv", [*rows, ("title 7", "another text of that title")])
    return folder


def test_distractors_are_held_out_and_asked_for_by_nobody(source, made, corpus, tmp_path):
    make_long(tmp_path / "with", [source], corpus=corpus)
    without, more = (
        sets.load(folder / "ret_long", "test").sets[0] for folder in (made[0], tmp_path / "with")
    )
    assert more.relevant == without.relevant
    assert more.documents[: len(without.documents)] == without.documents
    added = more.documents[len(without.documents) :]
    assert added
    passages = [line.split("\t")[1] for line in (corpus / "pairs.tsv").read_text().splitlines()]
    used = [text for text in passages if any(text in long for long in added)]
    assert used
    assert all(held_out((text,)) for text in used)


def test_dev_sets_of_held_out_pairs(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(derived_sets, "FEWEST", 3)
    out = tmp_path / "dev"
    sizes = make_dev(out, corpus)
    (found,) = sets.load(out / "ret_pairs_dev", "dev").sets
    assert len(found) == sizes["ret_pairs_dev"] >= 3
    assert all(held_out((text,)) for text in found.documents)
    trained = {
        text
        for line in (corpus / "pairs.tsv").read_text().splitlines()
        if not held_out(tuple(line.split("\t")))
        for text in line.split("\t")
    }
    assert not trained & {*found.documents, *found.queries}
    monkeypatch.setattr(derived_sets, "FEWEST", 10_000)
    with pytest.raises(InputError, match="no file with 10000 held-out pairs"):
        make_dev(tmp_path / "none", corpus)
    assert not (tmp_path / "none").exists()
