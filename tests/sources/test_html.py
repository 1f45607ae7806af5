"""HTML to text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asterisk.sources.html import iso_date, page
from sources.helpers import SAMPLES, contents, found, grows_linearly


def test_a_page() -> None:
    documents, lines = found(SAMPLES / "page.html")
    assert not lines
    assert contents(documents) == [
        (
            "",
            "Bread & butter",
            "How bread is made at home.\n\nBread\n\nMix flour, water and salt.\nWait…\n\n"
            "Unclosed paragraphs are fine. Café £5.\n\nFlour Grams\nRye 500\n\none\ntwo\n\n"
            "  knead\n    again\n\nA loaf",
        )
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a<b", "a"),  # a tag that never ends
        ("a < b > c", "a < b > c"),
        ("x<br/>y<hr>z", "x\ny\n\nz"),
        ("<p title='>'>a", "a"),
        ("<p title=don't>a</p>b", "a\n\nb"),
        ("<!-- <p>x</p> -->y<!-->z<!-- open", "yz"),
        ("<script>a</SCRIPT >b<style>c", "b"),
        ("<nav>a<nav>b</nav>c</nav>d", "d"),
        ("<nav>never closed", "never closed"),
        ("<nav><nav>a</nav>b", "ab"),
        ("&#x41;&amp;&nbsp;&unknown;&#" + "9" * 5000 + ";", "A& &unknown;\ufffd"),
        ("&#xD800;&#0;", "\ufffd\ufffd"),
        ("so\xadft", "soft"),
        ("<![CDATA[x]]>y<?php z ?>", "y"),
        ("</p>a</", "a</"),
        ("<", "<"),
        ("<td>a</td><td>b</td>", "a b"),
        ("<textarea><p>x</textarea>y", "y"),
        ("<nav>a<div>b</nav>c</div>d", "c\n\nd"),
        ("<template><td>x</template>y", "y"),
        ("<nav>a<!-- </nav> -->b</nav>c", "c"),
        ("<nav><script>'</nav>'</script>a</nav>b", "b"),
        ("<svg><title/><path/></svg>a", "a"),
        ("<p>a</p><ul><li>b<ol><li>c</ol><li>d</ul><p>e", "a\n\nb\nc\nd\n\ne"),
        ("<p hidden>a<p hidden=until-found>b", "b"),
        ("<i style='color:red; display: none'>a</i><dialog>b</dialog><dialog open>c</dialog>", "c"),
        ("<body hidden>a<div hidden>b</div>", "a"),
        ("<div hidden>all there is</div>", "all there is"),
        ("<pre>if a:\n\tb  c</pre>", "if a:\n    b  c"),
        ("<p>a <b>b</b>c <i>d</i></p>", "a bc d"),
        ("<div>" * 3000 + "a" + "</div>" * 3000 + "b", "a\n\nb"),
    ],
)
def test_pages_that_are_broken(source: str, text: str) -> None:
    assert page(source).text == text


def test_titles_and_descriptions() -> None:
    assert page("<title>a\n &lt;b&gt;</title><title>c</title>").title == "a <b>"
    assert page("<h1>Head <i>line</i></h1><h1>x</h1>").title == "Head line"
    assert page('<meta property="og:title" content="a"><h1>b</h1>').title == "a"
    assert page("<svg><title>drawn</title></svg>").title == ""
    source = '<meta property="og:description" content="a &amp; b"><meta name=description content=c>'
    assert page(f"{source}text", main=True).text == "c\n\ntext"


def test_author_date_and_tags() -> None:
    found = page(
        '<meta name="author" content="A. Writer"><meta name=keywords content="ice, snow,">'
        '<meta property="article:published_time" content="2026-01-02T03:04:05+02:00">'
        '<meta property="article:tag" content="alps">'
    )
    assert found.author == "A. Writer"
    assert found.date == "2026-01-02T01:04:05Z"
    assert found.tags == ("ice", "snow", "alps")
    dated = page("<time datetime=2020-01-01>x</time><article><time datetime=2026-01-02>y</time>")
    assert dated.date == "2026-01-02"
    assert page('<meta property="article:author" content="https://a.example/">').author == ""


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-01-02", "2026-01-02"),
        (" 2026-01-02T03:04:05.6Z ", "2026-01-02T03:04:05Z"),
        ("2026-01-02 03:04", "2026-01-02T03:04:00Z"),
        ("0001-01-01T00:00+14:00", ""),
        ("yesterday", ""),
    ],
)
def test_dates(text: str, date: str) -> None:
    assert iso_date(text) == date


def test_a_page_is_its_main_part_if_that_has_most_of_the_text() -> None:
    words = "glaciers carve valleys and leave moraines behind them. " * 5
    around = "<header>Site</header>{}<footer>Imprint</footer>"
    assert page(around.format(f"<main><p>{words}</main>"), main=True).text == words.strip()
    assert page(around.format(f"<div role=main>{words}</div>"), main=True).text == words.strip()
    assert page(around.format(f"<article>{words}</article>"), main=True).text == words.strip()
    teaser = page(f"<article>Read on</article><div>{words}</div>", main=True).text
    assert teaser == f"Read on\n\n{words.strip()}"
    assert page(around.format(f"<main>{words}</main>")).text.startswith("Site\n\n")


HOSTILE = [
    "<a ", "<!--", "<![CDATA[", "<a href='", "</", "<?", "<nav>", "<nav></nav>", "<nav><div></nav>",
    "<title>", "<div>", "<div></b>", "<b></i>", "&#", "&", "<p/", "<svg", "</nav ", "<h1>",
    "<script", "<script></nav>", "<img alt='x", "<p><b x=1>a", "<td></table>", "<main><nav>", "\0",
    "<!-- </nav>", "<div hidden><td></div>", "<time datetime=1>", "<", " \n",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_pages_take_time_by_their_length(piece: str) -> None:
    assert grows_linearly(lambda source: page(source, main=True), piece, 8_000)


def test_marks_that_stay_open_are_not_repeated_in_each_paragraph() -> None:
    source = "".join(f"<p><b x={number}>a" for number in range(10_000))  # 400 M nodes in HTML5
    assert page(source).text == "\n\n".join("a" * 10_000)


_tags = st.sampled_from([
    "<nav>", "</nav>", "<td>", "</div>", "<div hidden>", "<!--", "-->", "<script>", "</script>",
    "'", "<title>", "</title>", "<main>", "</main>", "\ud800", "\0", "\ufeff", "<?",
    "<html>", "</html>", "<plaintext>", "<![CDATA[", "&#x", "<a href=", "<svg>", "</svg>",
    "a ", "<h1>", "</h1>",
])  # fmt: skip


@settings(max_examples=120)
@given(source=st.lists(_tags, max_size=12).map("".join), main=st.booleans())
@example(source="", main=True)
@example(source=" ", main=True)
def test_there_is_no_page_that_is_refused(source: str, main: bool) -> None:
    page(source, main=main).text.encode()


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
