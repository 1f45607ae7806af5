from __future__ import annotations

import http.server
import re
import threading
from pathlib import Path

import pytest

from sources.finding import SAMPLES, found, told, written

FEED = '<rss version="2.0"><channel>{}</channel></rss>'
ITEM = "<item><title>t{0}</title><guid>g{0}</guid><description>d{0}</description></item>"


def items(count: int) -> str:
    return "".join(ITEM.format(number) for number in range(count))


def test_rss_2() -> None:
    documents, lines = found(SAMPLES / "rss2.xml")
    assert not lines
    assert told(documents) == [
        ("harbour-1", "Ferry & tug collide", "Nobody was hurt when the ferry met the tug."),
        (
            "https://harbour.example/2",
            "Dredging begins",
            "The dredger arrived on Monday.\n\nIt leaves in May — perhaps.",
        ),
        ("harbour-3", "Only a title", "Only a title"),
        ("harbour-1 (4)", "The same guid again", "An update."),
    ]


def test_rss_1_in_another_encoding() -> None:
    documents, lines = found(SAMPLES / "rss1.rdf")
    assert not lines
    assert told(documents) == [
        ("https://hill.example/a", "The café at the top", "Closed – until spring.")
    ]


def test_atom() -> None:
    documents, lines = found(SAMPLES / "atom.xml")
    assert not lines
    assert told(documents) == [
        ("urn:bees:1", "Swarms in June", "When x < y, they leave.\n\nOthers stay."),
        ("https://bees.example/2", "Plain a <b> c", "2 < 3 & so on"),
        ("urn:bees:3", "A picture", "Described."),
    ]


@pytest.mark.parametrize("name", ["rss2.xml", "rss1.rdf", "atom.xml"])
def test_samples_as_feedparser_reads_them(name: str) -> None:
    feedparser = pytest.importorskip("feedparser")
    theirs = feedparser.parse((SAMPLES / name).read_bytes()).entries
    documents, _ = found(SAMPLES / name)
    assert len(theirs) == len(documents)
    for entry, document in zip(theirs, documents, strict=True):
        assert document.key.split(" ")[0] == (entry.get("id") or entry.get("link"))
        assert _words(document.title) == _words(entry.title)
        parts = entry.get("content") or []
        value = "".join(part.value for part in parts if part.type != "image/png")
        value = value or entry.get("summary") or entry.title
        assert _words(document.text) == _words(value)


def _words(source: str) -> list[str]:
    html = pytest.importorskip("lxml.html")
    return re.findall(r"\w+", html.fromstring(f"<div>{source}</div>").text_content())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "shift_jis", "koi8-r"])
def test_encodings_as_declared(tmp_path: Path, encoding: str) -> None:
    text = "東京の猫" if encoding != "koi8-r" else "кошка"
    declared = encoding.removesuffix("-sig")
    data = f"<?xml version='1.0' encoding='{declared}'?>\n" + FEED.format(
        f"<item><title>{text}</title></item>"
    )
    documents, lines = found(written(tmp_path, "a.xml", data.encode(encoding)))
    assert [it.title for it in documents] == [text]
    assert not lines


def test_encodings_that_are_not_as_declared(tmp_path: Path) -> None:
    good, bad = items(3), "<item><title>caf\xe9</title></item>"
    data = b"<?xml version='1.0' encoding='utf-8'?>" + FEED.format(good + bad).encode("latin-1")
    documents, lines = found(written(tmp_path, "a.xml", data))
    assert len(documents) == 3
    assert re.match(
        r"a.xml: not UTF-8 \(near byte \d+; see --encoding\) \(entries before that: 3\)", *lines
    )
    undeclared = data.partition(b"?>")[2]
    documents, lines = found(written(tmp_path, "a.xml", undeclared), encoding="latin-1")
    assert [it.title for it in documents][3] == "café"
    unknown = b"<?xml version='1.0' encoding='x-none'?><rss/>"
    assert found(written(tmp_path, "a.xml", unknown))[1] == [
        "a.xml: says it is in 'x-none', which is unknown (see --encoding)"
    ]


def test_a_feed_cut_anywhere_gives_the_entries_before(tmp_path: Path) -> None:
    whole = FEED.format(items(4))
    for end in range(0, len(whole), 7):
        documents, lines = found(written(tmp_path, "a.xml", whole[:end]), kind="feed")
        assert len(documents) == whole[:end].count("</item>")
        assert len(lines) == 1


def test_a_broken_feed_says_where(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", "<rss>\n" + items(2) + "\n<item>&nbsp;</item></rss>")
    documents, lines = found(path)
    assert len(documents) == 2
    assert lines == ["a.xml: broken at line 3: undefined entity (entries before that: 2)"]


LAUGHS = (
    "<!DOCTYPE rss ["
    + '<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 11))
    + "]>"
    + FEED.format("<item><title>&a10;</title></item>")
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("before", ["", "<?xml version='1.0'?>", "\n<!-- x --><?p?>\n"])
def test_a_billion_laughs(tmp_path: Path, before: str) -> None:
    assert found(written(tmp_path, "a.xml", before + LAUGHS)) == (
        [],
        ["a.xml: a document type declaration, which feeds must not have"],
    )


def test_external_entities_are_not_fetched(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    secret = written(tmp_path, "secret.txt", "the secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for where in (f"file://{secret}", f"http://127.0.0.1:{server.server_port}/x"):
                bodies = [
                    f'<!DOCTYPE rss [<!ENTITY x SYSTEM "{where}">]>'
                    + FEED.format("<item><title>&x;</title></item>"),
                    f'<!DOCTYPE rss SYSTEM "{where}">' + FEED.format(items(1)),
                    f'<!DOCTYPE rss [<!ENTITY % x SYSTEM "{where}"> %x;]>' + FEED.format(items(1)),
                    f'<?xml-stylesheet href="{where}"?>' + FEED.format(items(1)),
                    FEED.format(
                        f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{where}"/>'
                        + items(1)
                    ),
                    f"<!DOCTYPE html><img src='{where}'><link rel=stylesheet href='{where}'>text",
                ]
                for name in ("a.xml", "a.html"):
                    for body in bodies:
                        documents, _ = found(written(tmp_path, name, body))
                        assert not any("secret" in it.text + it.title for it in documents)
        finally:
            server.shutdown()
            thread.join()
    assert not asked


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("<a>" * 100_000, "nested deeper than 256"),
        ("<item>" + "<b>" * 100_000, "nested deeper than 256"),
        (f'<a b="{"x" * 3_000_000}"/>', "a tag or comment longer than 1 MB"),
        (f"<!--{'x' * 3_000_000}-->", "a tag or comment longer than 1 MB"),
        (
            "".join(f"<a{n}/>" for n in range(20_000)),
            "more than 10,000 different names of elements",
        ),
        (
            "".join(f'<a xmlns:p{n}="u"/>' for n in range(20_000)),
            "more than 10,000 different names of elements",
        ),
    ],
)
def test_hostile_feeds_are_stopped(tmp_path: Path, inside: str, reason: str) -> None:
    path = written(tmp_path, "a.xml", FEED.format(items(1) + inside))
    documents, lines = found(path)
    assert len(documents) == 1
    assert lines == [f"a.xml: {reason} (entries before that: 1)"]


def test_deep_html_within_an_entry(tmp_path: Path) -> None:
    deep = "<div>" * 50_000 + "text" + "</div>" * 50_000
    path = written(
        tmp_path,
        "a.xml",
        FEED.format(f"<item><description><![CDATA[{deep}]]></description></item>"),
    )
    assert [it.text for it in found(path)[0]] == ["text"]
    assert [it.text for it in found(written(tmp_path, "a.html", deep))[0]] == ["text"]


def test_an_entry_beyond_the_limit_costs_itself_only(tmp_path: Path) -> None:
    long = f"<item><title>long</title><description>{'x ' * 3000}</description></item>"
    path = written(tmp_path, "a.xml", FEED.format(items(1) + long + long + items(1)))
    documents, lines = found(path, longest_text=1000)
    assert [it.title for it in documents] == ["t0", "t0"]
    assert lines == [
        f"a.xml, entry {number}: longer than 4,000 characters with its markup" for number in (2, 3)
    ]


def test_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.xml", FEED.format(items(5000)))
    documents, lines = found(path)
    assert told(documents) == [(f"g{n}", f"t{n}", f"d{n}") for n in range(5000)]
    assert not lines
    monkeypatch.setattr("asterisk.sources.entries.MOST_ENTRIES", 10)
    documents, lines = found(path)
    assert len(documents) == 10
    assert lines == ["a.xml: more than 10 entries (entries before that: 10)"]


def test_other_xml_is_named(tmp_path: Path) -> None:
    assert found(written(tmp_path, "a.xml", "<svg><title>x</title></svg>"))[1] == [
        "a.xml: XML, but no RSS or Atom feed"
    ]
