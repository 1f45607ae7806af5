"""Raw texts to a corpus: every kind of source, what is left out, and the same bytes each time."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import resource
import sys
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asterisk.cli import data
from asterisk.common import texts
from asterisk.common.corpus import LONGEST, LONGEST_LINE, Cleaner, digest, files, rows
from asterisk.common.digest import DigestSet
from asterisk.common.errors import InputError
from asterisk.common.text_files import open_packed
from asterisk.training.corpora.clean import Evaluated
from asterisk.training.corpora.corpus import (
    Corpus,
    DataRecipe,
    MarkovChain,
    prepare,
    read_description,
)
from asterisk.training.corpora.sources import Source, columns, file_source, newsroom, records

SOME = [text.text for text in texts.load()]
SMALL = DataRecipe(texts=500, joined=30, held_out=40)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    (folder / "single.txt").write_text("\n".join(SOME[:600]) + "\n")
    pairs = "\n".join(f"{a}\t{b}" for a, b in zip(SOME[500:750], SOME[650:900], strict=True))
    (folder / "pairs.tsv").write_text(pairs + "\n\n a \t\nx\ty\tz\n")
    rest = "\n".join(SOME[800:]).encode() + b"\n\xff broken caf\xc3\x83\xc2\xa9 utf \x00 nul\n"
    (folder / "more.txt.gz").write_bytes(gzip.compress(rest))
    return folder


@pytest.fixture(scope="module")
def corpus(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpora") / "corpus"
    prepare(files(raw), SMALL, out, evaluated=Evaluated(SOME[100:120]))
    return out


def one_line(capsys, status, *arguments):
    assert data.main([*map(str, arguments)]) == status
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("asterisk-data: ")]
    assert len(lines) == 1, told
    assert "Traceback" not in told
    return lines[0]


# --- the recipe


def test_a_recipe_gives_the_same_bytes_as_it_always_did(corpus):
    # Targets are made by position: another order of texts would make old ones wrong.
    hashes = {
        "train/texts.bin": "9189e0862a020cad",
        "train/ends.npy": "2cca3e800a1ca2b7",
        "train/pairs.npy": "ea9773a2ec535454",
        "train/sources.npy": "ba0e4d3fd3db2158",
        "held-out/texts.bin": "5a3db57cff287938",
    }
    for name, wanted in hashes.items():
        assert hashlib.sha256((corpus / name).read_bytes()).hexdigest()[:16] == wanted, name


def test_generated_texts_are_new_and_go_on_as_others_do(tmp_path):
    """Every three words of one stand in a text of the corpus; the held-out ones are none."""
    few = [Source("some", lambda: ((text,) for text in ROUND))]
    recipe = replace(SMALL, joined=0, generated=400)
    banned = Evaluated(SAID)
    prepare(few, recipe, tmp_path / "c", evaluated=banned)
    train, held = Corpus.open(tmp_path / "c"), Corpus.open(tmp_path / "c", "held-out")
    own = {text for index, text in enumerate(train) if train.sources[index] == 0}
    made = [text for index, text in enumerate(train) if train.sources[index] == 2]
    assert 20 < len(made) <= 72  # no denser than 400 beside 500 texts
    assert not (held.sources == 2).any()
    known = {piece for text in own for piece in pieces(text)}
    for text in made:
        assert pieces(text) <= known
        assert text not in {*ROUND, *SAID}
    assert len(set(made)) == len(made)
    prepare(few, recipe, tmp_path / "d", evaluated=banned)
    assert list(Corpus.open(tmp_path / "d")) == list(train)


def pieces(text: str) -> set[tuple[str, ...]]:
    """Every three words that follow each other, nothing before the first and after the last."""
    words = ["", "", *text.split(), ""]
    return set(zip(words, words[1:], words[2:], strict=False))


# Three places with a turn each: what is made exchanges them, and two of those texts are evaluated.
ROUND = [
    f"{who} would like to {what} the {which} {when}"
    for number, who in enumerate(("i", "you", "we", "they", "people"))
    for what in ("see", "sell", "find")
    for which in ("red car", "old house", "long book")
    for when in ("today", "on monday", "next week", "tomorrow morning")[number % 2 :: 2]
]
SAID = [
    "i would like to see the red car on monday",
    "we would like to sell the old house tomorrow morning",
]


@given(st.lists(st.lists(st.text(), max_size=4), max_size=3), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_any_texts_make_a_chain(groups, balance, seed):
    made = MarkovChain(groups, balance).text(np.random.default_rng(seed))
    known = {word for texts in groups for text in texts for word in text.split()}
    assert set(made.split()) <= known
    assert bool(made) == bool(known)
    assert len(made.split()) <= 30
    assert made == MarkovChain(groups, balance).text(np.random.default_rng(seed))


def test_a_small_corpus_is_joined_no_more_densely(tmp_path):
    one = Source("one", lambda: [(text,) for text in SOME[:100]])
    recipe = DataRecipe(texts=1_000, joined=1_000, held_out=10)
    prepare([one], recipe, tmp_path / "c", evaluated=Evaluated())
    train = Corpus.open(tmp_path / "c")
    joined = int((np.asarray(train.sources) == 1).sum())
    assert 0 < joined <= len(train) - joined


def test_what_is_in_a_corpus(corpus):
    train, held = Corpus.open(corpus), Corpus.open(corpus, "held-out")
    everything = [*train, *held]
    clean = Cleaner()
    assert len(everything) == len(set(everything)) == len(train) + len(held)
    assert not {clean(text) for text in SOME[100:120]} & set(everything)
    assert "\ufffd broken café utf nul" in everything
    told = read_description(corpus)
    assert told["sources"] == ["more", "pairs", "single", "joined", "generated"]
    assert told["rows"]["single"] == {"kept": 480, "short": 0, "repeated": 100, "evaluated": 20}
    joined = [train[i] for i in np.flatnonzero(train.sources == 3)]
    assert joined
    known = [clean(text) for text in SOME]
    for text in joined:
        assert sum(part in text for part in known) > 1
    both = {tuple(clean(c) for c in row) for row in rows_of_pairs() if all(row)}
    assert {(train[a], train[b]) for a, b in train.pairs} <= both


def rows_of_pairs():
    yield from zip(SOME[500:750], SOME[650:900], strict=True)
    yield "x", "z"


def test_held_out_texts_do_not_depend_on_what_else_is_read(raw, corpus, tmp_path):
    prepare([raw / "single.txt"], SMALL, tmp_path / "c", evaluated=Evaluated())
    alone = Corpus.open(tmp_path / "c", "held-out")
    train = set(Corpus.open(corpus))
    only = [alone[i] for i in np.flatnonzero(alone.sources == 0)]
    assert only
    assert not set(only) & train


def test_sources_of_one_name_are_told_apart(tmp_path):
    one = Source("joined", lambda: [(text,) for text in SOME[:50]])
    two = Source("joined", lambda: [(text,) for text in SOME[50:99]])
    told = prepare([one, two], SMALL, tmp_path / "c", evaluated=Evaluated())
    assert list(told) == ["joined-2", "joined-3"]
    assert read_description(tmp_path / "c")["sources"] == [
        "joined-2",
        "joined-3",
        "joined",
        "generated",
    ]


def test_a_failure_leaves_what_was_there(raw, corpus, tmp_path):
    def broken():
        yield (SOME[0],)
        raise KeyboardInterrupt

    out = tmp_path / "c"
    prepare([raw / "single.txt"], SMALL, out, evaluated=Evaluated())
    before = (out / "train" / "texts.bin").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        prepare([Source("b", broken)], SMALL, out, evaluated=Evaluated())
    assert (out / "train" / "texts.bin").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=3_000))
@settings(max_examples=30, deadline=None)
def test_known_is_a_dict(keys):
    known, truth = DigestSet(), {}
    for number, key in enumerate(keys):
        assert known.add(key, number) == truth.setdefault(key, number)
    assert len(known) == len(truth)
    assert all(known.get(key) == number and key in known for key, number in truth.items())
    assert known.get(5) == truth.get(5)


def test_evaluated_sees_other_case_and_punctuation_and_long_quotes():
    known = Evaluated(["The quick, brown fox!", " ".join(f"word{i}" for i in range(40))])
    assert "the QUICK brown fox" in known
    assert "the quick brown cat" not in known
    assert "before " + " ".join(f"word{i}" for i in range(10, 26)) + " after" in known
    assert "before " + " ".join(f"word{i}" for i in range(10, 20)) + " after" not in known


# --- readers


def packed(content: bytes, packing: str) -> bytes:
    if packing == ".gz":
        return gzip.compress(content)
    half = len(content) // 2  # two frames, as parallel writers make
    return (
        zstandard.compress(content[:half]) + zstandard.compress(content[half:])
        if packing
        else content
    )


@given(st.binary(max_size=300), st.sampled_from(["", ".gz", ".zst"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_lines(tmp_path_factory, content, packing):
    path = tmp_path_factory.getbasetemp() / f"any.txt{packing}"
    path.write_bytes(packed(content, packing))
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")))  # another encoding
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="replace").read()
    lines = text.removesuffix("\n").split("\n") if text else []
    assert [row[0] for row in rows(path)] == lines


@given(st.binary(max_size=200), st.sampled_from(["x.gz", "x.zst", "x.jsonl", "x.jsonl.gz"]))
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_one_clear_failure(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(content)
    try:
        list(records(path) if "jsonl" in name else rows(path))
    except InputError as failed:
        told = str(failed)
    else:
        told = str(path)
    assert str(path) in told


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_file_cut_short_is_noticed(tmp_path, packing):
    path = tmp_path / f"cut.txt{packing}"
    whole = (
        gzip.compress(b"text\n" * 999) if packing == ".gz" else zstandard.compress(b"ab\n" * 999)
    )
    for length in (len(whole) - 1, len(whole) // 2, 6):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged"):
            list(rows(path))


def test_a_bomb_is_read_in_pieces(tmp_path):
    from contextlib import ExitStack

    path = tmp_path / "bomb.txt.zst"
    compressor = zstandard.ZstdCompressor().compressobj()
    with path.open("wb") as file:
        for _ in range(600):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.flush())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ExitStack() as stack:
        stream = open_packed(path, stack)
        assert len(stream.read(1 << 20)) == 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_an_endless_line_is_cut(tmp_path):
    path = tmp_path / "endless.txt"
    path.write_bytes(b"a" * (3 * LONGEST_LINE))
    assert [len(row[0]) for row in rows(path)] == [LONGEST_LINE] * 3
    assert len(Cleaner()("b" * 9_999_999)) == LONGEST


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_clean_texts_are_one_line_and_clean(text):
    clean = Cleaner()
    once = clean(text)
    assert len(once.splitlines()) <= 1
    assert once == once.strip()
    assert "\x00" not in once
    assert "  " not in once
    assert digest(once) == digest(once)


def test_records(tmp_path):
    path = tmp_path / "r.jsonl"
    told = [{"a": "one two", "b": "three", "c": 3}, {"a": "only"}, {"b": None, "a": "x"}]
    path.write_text("\n\n".join(map(json.dumps, told)) + "\n")
    assert list(file_source(path, columns(("a", "b"))).read()) == [("one two", "three"), (), ()]
    assert list(file_source(path, columns(("a",))).read()) == [("one two",), ("only",), ("x",)]
    with pytest.raises(InputError, match="the first has a, b, c"):
        list(file_source(path, columns(("z",))).read())
    with pytest.raises(InputError, match="--columns"):
        file_source(path)
    for wrong in ("[1]", "{", '"text"', "[" * 100_000):
        path.write_text('{"a": "x"}\n' + wrong + "\n")
        with pytest.raises(InputError, match="line 2"):
            list(records(path))


# --- presets and datasets


def test_newsroom():
    text = "First paragraph, of the article.\n\nSecond."
    assert newsroom({"summary": "A summary.", "text": text}) == (
        "A summary.",
        "First paragraph, of the article.",
    )
    for record in ({}, {"summary": None, "text": text}, {"summary": " ", "text": "b"}, {"text": 1}):
        assert newsroom(record) == ()


def articles():
    for number in range(60):
        yield {
            "title": "t",
            "summary": f"Summary number {number} has six words.",
            "text": f"The first paragraph of article {number} here.\n\nThe second is left out.",
        }
    yield {"summary": "Five words are too few.", "text": "This paragraph has many more words.\n\nx"}
    yield {"summary": "", "text": "This paragraph alone has many more words than that."}


@pytest.fixture
def news(tmp_path):
    folder = tmp_path / "news"
    folder.mkdir()
    content = "".join(json.dumps(record) + "\n" for record in articles())
    (folder / "train.jsonl").write_text(content)
    return folder


def check_news(out, capsys):
    told = read_description(out)
    (counts,) = told["rows"].values()
    assert counts == {"kept": 60, "short": 2, "repeated": 0, "evaluated": 0}
    train = Corpus.open(out)
    assert not any("second" in text for text in train)
    assert all(train[a].startswith("Summary") and "first" in train[b] for a, b in train.pairs)
    assert "60" in capsys.readouterr().out


def test_the_newsroom_preset(news, tmp_path, capsys):
    path = news / "train.jsonl.gz"
    path.write_bytes(gzip.compress((news / "train.jsonl").read_bytes()))
    out = tmp_path / "out"
    assert data.main([str(path), "--preset", "newsroom", "--out", str(out)]) == 0
    check_news(out, capsys)


def test_a_dataset_of_hugging_face_from_a_local_folder(news, tmp_path, capsys):
    pytest.importorskip("datasets")
    out = tmp_path / "out"
    arguments = ["--hugging-face", str(news), "--preset", "newsroom", "--out", str(out)]
    assert data.main(arguments) == 0
    check_news(out, capsys)
    told = one_line(capsys, 4, "--hugging-face", tmp_path / "no", "--columns", "a", "--out", out)
    assert "cannot open the dataset" in told
    arguments = ("--hugging-face", news, "--split", "nothing", "--columns", "a", "--out", out)
    assert "cannot open the dataset" in one_line(capsys, 4, *arguments)


def test_datasets_is_an_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    told = one_line(capsys, 3, "--hugging-face", "a/b", "--columns", "a", "--out", tmp_path / "c")
    assert "datasets" in told


# --- the command


def test_the_command(raw, tmp_path, capsysbinary):
    sets = tmp_path / "eval" / "set"
    sets.mkdir(parents=True)
    (sets / "test.tsv").write_text("".join(f"1.0\t{text}\tother\n" for text in SOME[200:210]))
    (sets / "qrels.tsv").write_text(f"a\t{SOME[0]}\t1\n")
    out = tmp_path / "corpus"
    arguments = [raw, "--out", out, "--texts", 500, "--joined", 0, "--held-out", 40]
    assert data.main([*map(str, arguments), "--evaluation", str(tmp_path / "eval")]) == 0
    told = capsysbinary.readouterr().out.decode()
    assert told.splitlines()[0].split() == ["rows", "kept", "short", "repeated", "evaluated"]
    assert read_description(out)["rows"]["single"]["evaluated"] == 10
    for part in ("train", "held-out"):
        assert data.main(["--print-texts", str(out), "--part", part]) == 0
        printed = capsysbinary.readouterr().out.decode().removesuffix("\n").split("\n")
        assert printed == list(Corpus.open(out, part))
    assert data.main([str(raw), "--rows", "9", "--out", str(out)]) == 0
    assert read_description(out)["rows"]["more"]["kept"] == 9


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["nothing.txt"], 4, "No such file"),
        (["."], 4, "holds no"),
        (["empty.txt"], 4, "nothing is left"),
        (["bad.txt.gz"], 4, "bad.txt.gz"),
        (["r.jsonl"], 4, "--columns"),
        (["r.jsonl", "--columns", "z"], 4, "no record"),
        (["r.jsonl", "--columns", "a", "--preset", "newsroom"], 2, "newsroom"),
        ([], 2, "name a file"),
        (["--hugging-face", "a/b"], 2, "--columns"),
        (["empty.txt", "--evaluation", "nowhere"], 4, "no evaluation set"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, status, told):
    for name, content in {"empty.txt": "", "bad.txt.gz": "x", "r.jsonl": '{"a": "b c"}\n'}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "empty").mkdir()
    names = {"nothing.txt", "empty.txt", "bad.txt.gz", "r.jsonl", "nowhere"}
    there = [
        tmp_path / a if a in names else tmp_path / "empty" if a == "." else a for a in arguments
    ]
    before = sorted(tmp_path.iterdir())
    assert told in one_line(capsys, status, *there, "--out", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_corpus_with_nothing_held_out_says_so(tmp_path, capsys):
    (tmp_path / "few.txt").write_text("one text of a few words\nand another one\n")
    assert data.main([str(tmp_path / "few.txt"), "--out", str(tmp_path / "few")]) == 0
    assert "no text is held out" in capsys.readouterr().err


def test_a_folder_of_others_is_left_alone(raw, capsys):
    assert "left alone" in one_line(capsys, 7, raw, "--out", raw)


VALUES = st.one_of(st.text(max_size=8), st.sampled_from(["-1", "1e9", "nan", "0.5", "٣", "9" * 30]))


@given(
    st.sampled_from(["--texts", "--joined", "--held-out", "--balance", "--longest", "--seed"]),
    VALUES,
)
@settings(max_examples=60, deadline=None)
def test_options_are_read_or_refused(option, value):
    with contextlib.suppress(SystemExit):
        read = vars(data.parser().parse_args(["x", f"{option}={value}"]))
        assert 0 <= read[option.strip("-").replace("-", "_")] <= 1_000_000_000
