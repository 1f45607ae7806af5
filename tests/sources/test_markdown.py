"""Markdown, and what Obsidian adds to it, to text."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.sources import markdown
from asterisk.sources.markdown import parse
from sources.helpers import SAMPLES, contents, found, grows_linearly, written


def test_a_note() -> None:
    documents, lines = found(SAMPLES / "notes.md")
    assert not lines
    assert contents(documents) == [
        (
            "",
            "On bees: a note",
            "Bees\n\nA link, an image and a reference; bold, italic, struck, code with <tags> "
            "and a * b 234 snake_case. "
            "An escaped *star* and R&D, x < y.\n\nHand\n\none\ntwo\ndone\n\n"
            'Hive Count\nEast 3\n\ndef bees():\n    return "**many**"  # <b>\n\n'
            "quoted text\n\nhttps://bees.example/a_b",
        )
    ]
    assert documents[0].tags == ("bees",)


@pytest.mark.parametrize(
    ("source", "title", "text"),
    [
        ("# One\n\ntext", "One", "text"),
        ("text\n\n# One\n", "One", "text\n\nOne"),
        ("One\n===\ntext", "One", "text"),
        ("# *A* [[b|c]] `d`\n\ntext", "A c d", "text"),
        ("---\ntitle: 'A: b'\n---\ntext", "A: b", "text"),
        ("---\ntitle: A\n---\n# B\n\ntext", "A", "B\n\ntext"),
        ('+++\ntitle = "T"\n+++\ntext', "T", "text"),
        ("---\nno end\n\ntext", "", "no end\n\ntext"),
        ("---\n---\ntext", "", "text"),
        ("```\nopen # fence\n", "", "open # fence"),
        ("a\n<!-- b\n\nc --> d", "", "a\n\nd"),
        ("", "", ""),
    ],
)
def test_titles(source: str, title: str, text: str) -> None:
    found = parse(source)
    assert (found.title, found.text) == (title, text)


@pytest.mark.parametrize(
    ("matter", "date", "author", "tags"),
    [
        ("date: 2026-01-02\nauthor: A B", "2026-01-02", "A B", ()),
        ("date: 2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z", "", ()),
        ("date: last week\ntags:\n", "", "", ()),
        ("abstract: >-\n  Folded\nauthor: 'A: C#'", "", "A: C#", ()),
        ("tags: [a, 'b c']\nkeywords: d, e", "", "", ("a", "b c", "d", "e")),
        ('tags:\n  - a\n  - "#b"\nauthors:\n- X\n- Y', "", "X, Y", ("a", "b")),
        ("aliases:\n  - z\nnested:\n  title: no\n  - no\ntags: a", "", "", ("a",)),
    ],
)
def test_front_matter(matter: str, date: str, author: str, tags: tuple[str, ...]) -> None:
    found = parse(f"---\n{matter}\n---\ntext")
    assert (found.title, found.text) == ("", "text")
    assert (found.date, found.author, found.tags) == (date, author, tags)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("[[Page]] and [[Page|shown]]", "Page and shown"),
        ("[[Page#Heading]] [[#Heading]] [[Page#^block]]", "Page Heading Heading Page"),
        ("a ![[image.png]] b ![[image.png|100x80]] c", "a b c"),
        ("![[Note]] ![[Note#Part]]", "Note Note Part"),
        ("![a bee|200](bee.png)", "a bee"),
        ("| a | b |\n|---|---|\n| [[P\\|shown]] | c |", "a b\nshown c"),
        ("> [!note] Title\n> first\n> second", "Title\nfirst second"),
        ("> [!warning]-\n> text", "text"),
        ("==high *light*== but a == b", "high light but a == b"),
        ("a %%hidden%% b", "a b"),
        ("a\n\n%%\nhidden\n\n# hidden\n%%\n\nb", "a\n\nb"),
        ("100%% sure", "100%% sure"),
        ("A paragraph. ^abc123\n\n- item ^id-1", "A paragraph.\n\nitem"),
        ("- [ ] do\n- [x] done", "do\ndone"),
        ("One[^1], two[^b] [^a-z].\n\n[^1]: first note\n[^b]: word", "One, two [^a-z].\n\n"
         "first note\nword"),
        ("so $a_1 * b_2 * c$ is, for $5 and $10", "so $a_1 * b_2 * c$ is, for $5 and $10"),
        ("`[[ -f x ]]` and `==x==`", "[[ -f x ]] and ==x=="),
        ("```dataview\nTABLE [[x]] %%y%%\n```", "TABLE [[x]] %%y%%"),
        ("::: tip\ntext\n:::", "::: tip text :::"),
    ],
)  # fmt: skip
def test_obsidian(source: str, text: str) -> None:
    assert parse(source).text == text


def test_tags_are_read_where_obsidian_reads_them() -> None:
    text = "On #ice and #alps/glaciers (#snow), #123 x#y `#code` [a](#anchor)"
    found = parse(f"{text}\n\n    #block\n")
    assert found.tags == ("ice", "alps/glaciers", "snow")
    assert found.text.startswith("On #ice and #alps/glaciers (#snow), #123 x#y #code a")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<details>\n<summary>S</summary>\n\nwith **b**\n\n</details>", "S\n\nwith b"),
        ("the <title> tag<br>and <kbd>key</kbd> <img alt='i'>", "the tag\nand key i"),
        ("<script>\nx\n</script>\n\ny", "y"),
        ("<div>a</div>\n<p>b &amp; c", "a\n\nb & c"),
        (">" * 200 + " deep", ">" * 200 + " deep"),
    ],
)
def test_html_and_nesting(source: str, text: str) -> None:
    assert parse(source).text == text


class _Words(HTMLParser):
    said = ""

    def handle_data(self, data: str) -> None:
        self.said += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.said += dict(attrs).get("alt") or ""


_piece = st.sampled_from([
    "a", "*", "**", "_", "`", "~~", "[", "]", "(u)", "![", "<http://a.b>", "\\", "&amp;", "\n",
    "\n\n", "- ", "1. ", "> ", "    ", "```\n", "| a | b |\n|---|---|\n| c | d |\n", "[a]: /u\n",
    "é", " ", "---\n", "## ",
])  # fmt: skip


@settings(max_examples=120)
@given(source=st.lists(_piece, max_size=14).map("".join))
def test_commonmark_as_its_own_renderer_and_html_parser_read_it(source: str) -> None:
    from markdown_it import MarkdownIt

    theirs = _Words()
    theirs.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))
    theirs.close()
    ours = parse(f"---\ntitle: T\n---\n{source}").text
    assert re.sub(r"\s", "", ours) == re.sub(r"\s", "", theirs.said)


_mark = st.sampled_from([
    "[[", "]]", "|", "==", "%%", "\n%%", "[^1]", "\n[^1]: ", "$", "$$", "`", "```\n", "> [!a] ",
    "- ", "#t", " ^x", "---\n", "tags: ", "\n", "\n\n", "![a|3](b)", "<b", "<!--", "\0",
    "\ud800", "a", "    ",
])  # fmt: skip


@settings(max_examples=120)
@given(source=st.lists(_mark, max_size=14).map("".join))
def test_there_is_no_note_that_is_refused(source: str) -> None:
    parse(source).text.encode()


@pytest.mark.parametrize(
    "piece",
    ["[", "![", "[](", "[a](b", "*", "_", "**a ", "`", "<a", "> ", "- ", "~~", "\n#", "\n- ",
     "<!--", "$a", "==a ", "%%", "\n%%a\n", "> %%\n", "[[a", "[[a|", "\n[^a]: ", "\n> [!a] b", "^a",
     "#a ", "| a\n", "![a|1](b)", "\n<b>"],
)  # fmt: skip
def test_hostile_notes_take_time_by_their_length(piece: str) -> None:
    assert grows_linearly(parse, piece, 600)


def test_without_markdown_it_a_note_is_skipped_by_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    markdown._parser.cache_clear()
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    documents, lines = found(written(tmp_path, "a.md", "text"))
    assert not documents
    assert lines == [
        "a.md: markdown_it is not installed; install it with: pip install 'asterisk-edge[markdown]'"
    ]


@pytest.mark.parametrize(
    "source",
    [
        "---\nIt was a dark and stormy night.\nThe zebra ran.\n---\n\nChapter two\n",
        "---\n# Heading\n- one\n---\n\nChapter two\n",
        "---\ntitle: T\nno value here\n---\n\nChapter two\n",
    ],
)
def test_prose_between_two_rules_is_text(source: str) -> None:
    words = " ".join(source.replace("-", " ").replace("#", " ").split())
    assert " ".join(parse(source).text.split()) == words
