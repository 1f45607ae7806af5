"""HTML and Markdown to text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.sources.markdown import inline, reduced
from asterisk.sources.markup import page
from sources.finding import SAMPLES, found, told


def test_a_page() -> None:
    documents, lines = found(SAMPLES / "page.html")
    assert not lines
    assert told(documents) == [
        (
            "",
            "Bread & butter",
            "How bread is made at home.\n\nBread\n\nMix flour, water and salt.\nWait…\n\n"
            "Unclosed paragraphs are fine. Café £5.\n\nFlour Grams\nRye 500\n\none\ntwo\n\n"
            "knead\nagain\n\nA loaf",
        )
    ]


def test_a_page_as_libxml2_reads_it() -> None:
    html = pytest.importorskip("lxml.html")
    tree = html.fromstring((SAMPLES / "page.html").read_bytes())
    for dropped in tree.xpath("//script|//style|//nav|//template|//noscript|//svg|//title"):
        dropped.drop_tree()
    theirs = re.findall(r"\w+", " ".join(tree.xpath("//text()|//img/@alt")))
    ours = re.findall(r"\w+", page((SAMPLES / "page.html").read_text("latin-1")).text)
    assert [word for word in ours if word not in {"salt"}] == [
        word for word in theirs if word not in {"sa", "lt"}
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a<b", "a"),  # a tag that never ends
        ("a < b > c", "a < b > c"),
        ("x<br/>y<hr>z", "x\ny\n\nz"),
        ("<p title='>'>a", "a"),
        ("<p title=don't>a</p>b", "a\n\nb"),
        ('<p title="open>a</p>b', "a\n\nb"),
        ("<!-- <p>x</p> -->y<!-->z<!-- open", "yz"),
        ("<script>a</SCRIPT >b<style>c", "b"),
        ("<nav>a<nav>b</nav>c</nav>d", "d"),
        ("<nav>never closed", "never closed"),
        ("<nav><nav>a</nav>b", "b"),
        ("&#x41;&amp;&nbsp;&unknown;&#" + "9" * 5000 + ";", "A& &unknown;\ufffd"),
        ("&#xD800;&#0;", "\ufffd\ufffd"),
        ("so\xadft", "soft"),
        ("<![CDATA[x]]>y<?php z ?>", "y"),
        ("</p>a</", "a"),
        ("<", "<"),
        ("<td>a</td><td>b</td>", "a b"),
        ("<textarea><p>x</textarea>y", "y"),
    ],
)
def test_pages_that_are_broken(source: str, text: str) -> None:
    assert page(source).text == text


def test_titles_and_descriptions() -> None:
    assert page("<title>a\n &lt;b&gt;</title><title>c</title>").title == "a <b>"
    assert page("<h1>Head <i>line</i></h1><h1>x</h1>").title == "Head line"
    assert page("<title>never closed <p>x").title == ""
    found = page(
        '<meta property="og:description" content="a &amp; b"><meta name=description content=c>'
    )
    assert found.description == "a & b"


HOSTILE = [
    "<a ", "<!--", "<![CDATA[", "<a href='", '<a b="', "</", "<?", "<nav>", "<nav><nav></nav>",
    "<title>", "<div>", "&#", "&#x", "&", "<a =", "<p/", "<svg", "</nav ", "<pre>", "<h1>",
    "<script", "<meta content=", "<img alt='x", "\xad", " \n",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_pages_take_time_by_their_length(piece: str) -> None:
    many = 200_000 // len(piece)
    page(piece * many)
    page(piece * many + ">")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["[", "![", "[](", "[a](b", "[](<", '[]("', "*", "_", "**a ", "`", "``", "<a", "<", "> ", "#",
     "|", "- ", " ", "\\", "~~", "[](()", "![a](b) ", "\n#", "\n```", "\n- ", "<!--", "\t|-"],
)  # fmt: skip
def test_hostile_markdown_takes_time_by_its_length(piece: str) -> None:
    reduced(piece * (100_000 // len(piece)) + "x")


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


_element = st.sampled_from(["p", "b", "div", "em", "td", "li", "h2", "span"])
_text = st.text("abc é&;#<>\"'=/", max_size=10).map(
    lambda it: it.replace("&", "&amp;").replace("<", "&lt;")
)
_tree = st.recursive(
    _text,
    lambda inner: st.tuples(_element, _text, st.lists(inner, max_size=3)).map(
        lambda it: f'<{it[0]} title="{it[1].replace(chr(34), "")}">{"".join(it[2])}</{it[0]}>'
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(source=_tree)
def test_well_formed_pages_as_the_standard_library_reads_them(source: str) -> None:
    parser = _Words()
    parser.feed(source)
    parser.close()
    assert "".join(page(source).text.split()) == "".join("".join(parser.said).split())


def test_markdown() -> None:
    documents, lines = found(SAMPLES / "notes.md")
    assert not lines
    assert told(documents) == [
        (
            "",
            "On bees: a note",
            "Bees\n\nA link, an image and a reference; bold, italic, struck, code with <tags> "
            "and a * b 2*3*4 snake_case. "
            "An escaped *star* and R&D, x < y.\n\nHand\n\none\ntwo\ndone\n\n"
            'Hive, Count\nEast, 3\n\ndef bees():\n    return "**many**"  # <b>\n\n'
            "quoted text\n\nhttps://bees.example/a_b",
        )
    ]


@pytest.mark.parametrize(
    ("source", "title", "text"),
    [
        ("# One\n\ntext", "One", "text"),
        ("text\n\n# One\n", "One", "text\n\nOne"),
        ("One\n===\ntext", "One", "text"),
        ("---\ntitle: 'A: b'\n---\ntext", "A: b", "text"),
        ('+++\ntitle = "T"\n+++\ntext', "T", "text"),
        ("---\nno end\n\ntext", "", "no end\n\ntext"),
        ("#hashtag", "", "#hashtag"),
        ("```\nopen # fence\n", "", "open # fence"),
        ("a\n<!-- b\n\nc --> d", "", "a\n\nd"),
        ("", "", ""),
    ],
)
def test_titles_of_markdown(source: str, title: str, text: str) -> None:
    assert reduced(source) == (title, text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("[a](b(c)d)", "a"),
        ("[![i](s)](t)", "i"),
        ("[a][b] [c][] [d]", "a c [d]"),
        ("`[a](b)` [`c`](d)", "[a](b) c"),
        ("__init__ and *x*, 2*3", "init and x, 2*3"),
        ("a <b>c</b> <br> d", "a c \n d"),
        ("\\[a\\]", "[a]"),
    ],
)
def test_inline_markdown(source: str, text: str) -> None:
    assert "".join(inline(source).split()) == "".join(text.split())
