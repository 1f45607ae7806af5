"""Questions: whatever a person types is text, and what is shown is fit to be shown."""

from __future__ import annotations

import sqlite3
import unicodedata
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.search.fake_runtime import FakeRuntime, create_index, documents
from asterisk.apps.search import Index
from asterisk.apps.search.database import WORDS
from asterisk.apps.search.query import MOST_TERMS, any_of, positions, snippet, terms
from asterisk.common.errors import InputError, UsageError
from asterisk.common.terminal import printable
from asterisk.sources.document import make_document


@pytest.fixture(scope="module")
def runtime():
    return FakeRuntime()


@pytest.fixture(scope="module")
def index(tmp_path_factory, runtime):
    texts = [
        make_document(
            "/a", "1", "Café news", "The café opened; naïve visitors AND others came NEAR it."
        ),
        make_document("/a", "2", "", "\x1b[31mred\x1b[0m alert\u202e reversed \x07bell"),
        make_document("/a", "3", "", 'don\'t stop (now) "quoted" words: col:umn a-b c* ^d'),
    ]
    with create_index(tmp_path_factory.mktemp("query") / "index.db", runtime) as index:
        index.update([*documents(200), *(text for text in texts if text)], runtime)
        yield index


WILD = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "AND",
                "OR",
                "NOT",
                "NEAR(a b",
                '"',
                "'",
                "(",
                ")",
                "*",
                "^",
                ":",
                "-",
                "+",
                "{",
                "}",
                "text",
                "rowid",
                "w1",
                "\0",
                "\ud800",
                "col:",
                ";",
                "--",
                "\n",
            ]
        ),
        max_size=12,
    ).map(" ".join),
)


@given(WILD, st.sampled_from(["hybrid", "vectors", "words"]))
@example('"', "words")
@example("\ud800", "hybrid")
@example("NEAR(", "words")
@settings(max_examples=80, deadline=None)
def test_no_query_raises(index, runtime, text, mode):
    if not text.strip():
        with pytest.raises(InputError):
            index.search(text, 3, runtime, mode)
        return
    for hit in index.search(text, 3, runtime, mode):
        assert all(sign.isprintable() or sign in "\u200c\u200d" for sign in hit.snippet)


def test_words_are_found_whatever_their_case_and_accents(index):
    for query in (
        "cafe",
        "CAFÉ",
        "cafe\u0301",
        "Naive",
        "don't",
        '"quoted"',
        "col:umn",
        "and NEAR",
    ):
        assert index.search(query, 3, None, "words")[0].source == "/a", query
    assert index.search("news", 3, None, "words")[0].title == "Café news"  # a title's word
    assert index.search("absent", 3, None, "words") == []


SCRIPTS = {
    "Korean": "세계 여행",
    "Russian": "район русский ёлка",
    "Japanese": "データ が 東京",
    "Greek": "ένα Ελλάδα ΟΔΟΣ",
    "Vietnamese": "Việt Nam đường",
    "Turkish": "İstanbul ışık",
    "German": "Straße Äpfel",
    "Hindi": "हिन्दी दुनिया",
    "Thai": "ภาษาไทย น้ำ",
    "Arabic": "مُحَمَّد العربية",
    "Hebrew": "שָׁלוֹם עולם",
    "Armenian": "Հայաստան",
    "Georgian": "საქართველო",
    "Tamil": "தமிழ்",
    "Amharic": "አማርኛ",
    "Ukrainian": "Україна її",
    "mathematical": "𝐱𝑦 ① ² ﬁne",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_words_of_every_script_are_found_however_they_are_spelt(tmp_path, runtime, text):
    with create_index(tmp_path / "index.db", runtime) as index:
        for form in ("NFC", "NFD"):
            held = make_document("/a", form, "", unicodedata.normalize(form, text))
            index.update([*documents(60), *([held] if held else [])], runtime)
            for word in text.split():
                for spelt in (word, *(unicodedata.normalize(f, word) for f in ("NFC", "NFD"))):
                    hits = index.search(spelt, 1, None, "words")
                    assert [hit.key for hit in hits] == [form], (form, spelt)


POINTS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("".join(SCRIPTS.values())),
    st.characters(categories=["Mn", "Mc"]),
    st.characters(min_codepoint=0xA0, max_codepoint=0x1FFF, exclude_categories=["Cs"]),
)


@given(st.text(POINTS, min_size=1, max_size=40))
@example("e\u0301\0b")
@example("ǅ ẞ ſ ﬁ")
@example("a\u0331b \u0301c")
@settings(max_examples=150, deadline=None)
def test_every_word_that_fts5_makes_of_a_text_is_asked_for(text):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(WORDS)
        connection.execute("CREATE VIRTUAL TABLE inside USING fts5vocab(words, row)")
        connection.execute("INSERT INTO words(rowid, text) VALUES (1, ?)", (text,))
        made_of_it = {term for (term,) in connection.execute("SELECT term FROM inside")}
        asked = terms(text)
        assert made_of_it <= set(asked)
        for term in made_of_it:  # and means the same as a question
            query = "SELECT rowid FROM words WHERE words MATCH ?"
            assert connection.execute(query, (any_of([term]),)).fetchall() == [(1,)]


def test_words_are_told_apart_without_fts5_too(monkeypatch):
    monkeypatch.setattr("asterisk.apps.search.query._fts5", lambda *_: None)
    assert terms("Crème BRÛLÉE, 7!")[:3] == ["crème", "brûlée", "7"]
    assert "the Zebra" in snippet("No. " * 200 + "the Zebra crossed. " + "No. " * 200, ["zebra"])


def test_arguments_that_cannot_be_meant_are_refused(index, runtime):
    for call in (
        lambda: index.search("a", 0, runtime),
        lambda: index.search("a", 3, runtime, "nothing"),
        lambda: index.search(None, 3, runtime),
        lambda: index.search("a", 3, None),
    ):
        with pytest.raises(UsageError):
            call()


def test_common_words_are_left_out_beside_rare_ones(tmp_path, runtime):
    texts = [
        make_document("/a", str(i), "", f"the common words with number{i % 40}") for i in range(400)
    ]
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update([text for text in texts if text], runtime)
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.words.choose("the common words with number7") == ["number7"]
        assert index.words.choose("the common") == ["common"]  # better than nothing
        assert index.words.choose("the number7 unknown") == ["number7"]
        many = " ".join(f"number{i}" for i in range(40))
        assert len(index.words.choose(many)) == MOST_TERMS
        assert len(index.search("the", 10, None, "words")) == 10


def test_terms_are_folded_and_bounded():
    assert terms("Crème_brûlée, CRÈME 7!") == ["creme", "brulee", "7"]
    assert len(terms(" ".join(map(str, range(10_000))))) == 1_000


def test_a_snippet_shows_the_words_that_were_asked_for():
    text = "Nothing here. " * 60 + "The zebra crossed the river. " + "Nothing again. " * 60
    shown = snippet(text, ["zebra", "river"])
    assert "zebra crossed the river" in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")
    assert len(shown) <= 230
    assert snippet(text, ["absent"]).startswith("Nothing here.")
    assert snippet("short", []) == "short"
    accents = "Ничего нет. " * 60 + "Новый район города. " + "Ничего нет. " * 60
    assert "Новый район" in snippet(accents, terms("РАЙОН"))
    assert positions("Ça va, ÇA alors ca", ["ca"]) == [(0, "ca"), (7, "ca"), (16, "ca")]


@given(st.text(max_size=2_000), st.lists(st.text(max_size=5), max_size=5))
def test_no_snippet_holds_what_a_terminal_obeys(text, asked):
    shown = snippet(text, asked)
    assert len(shown) <= 230
    assert all(sign.isprintable() or sign in "\u200c\u200d" for sign in shown)
    assert printable(shown) == shown


def test_escapes_in_foreign_text_are_gone(index, runtime):
    (hit,) = (h for h in index.search("red alert", 5, runtime) if h.key == "2" and h.source == "/a")
    assert hit.snippet == "[31mred [0m alert reversed bell"


def test_hits_are_exact_places_in_the_text(index, runtime):
    for hit in index.search("text w1 w2", 20, runtime):
        source, text = index.connection.execute(
            "SELECT source, text FROM documents WHERE id = ?", (hit.document,)
        ).fetchone()
        assert source
        assert printable(text[hit.start : hit.end]) == hit.snippet


def test_a_reader_that_stays_open_finds_what_is_written_meanwhile(tmp_path, runtime):
    path = tmp_path / "index.db"
    with create_index(path, runtime) as writer:
        writer.update(documents(30), runtime)
        with Index.open(path) as reader:
            for _ in range(3):  # what it has seen is kept
                assert reader.search("zebra", 3, None, "words") == []
                assert reader.search("A late zebra.", 1, runtime, "vectors")[0].source == "/texts"
            late = make_document("/late", "", "", "A late zebra.")
            writer.update([*documents(30), *([late] if late else [])], runtime)
            assert reader.search("zebra", 3, None, "words")[0].source == "/late"
            (hit,) = reader.search("A late zebra.", 1, runtime, "vectors")
            assert (hit.source, round(hit.score, 4)) == ("/late", 1)
