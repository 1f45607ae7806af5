from __future__ import annotations

import gzip
import http.server
import json
import sys
import threading
from pathlib import Path

import pytest

from sources.helpers import SAMPLES, contents, eight_times_as_much, found, written

FEED = '<rss version="2.0"><channel>{}</channel></rss>'
ITEM = "<item><title>t{0}</title><guid>g{0}</guid><description>d{0}</description></item>"


def items(count: int) -> str:
    return "".join(ITEM.format(number) for number in range(count))


def test_rss_2() -> None:
    documents, lines = found(SAMPLES / "rss2.xml")
    assert not lines
    assert contents(documents) == [
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
    assert contents(documents) == [
        ("https://hill.example/a", "The café at the top", "Closed – until spring.")
    ]


def test_atom() -> None:
    documents, lines = found(SAMPLES / "atom.xml")
    assert not lines
    assert contents(documents) == [
        ("urn:bees:1", "Swarms in June", "When x < y, they leave.\n\nOthers stay."),
        ("https://bees.example/2", "Plain a <b> c", "2 < 3 & so on"),
        ("urn:bees:3", "A picture", "Described."),
    ]


CASES = {
    "undeclared-entities.xml": (
        ["The glacier retreats — in summer’s heat.", "Bread prices rose."],
        "read in spite of broken XML: undefined entity in line 1",
    ),
    "control-characters.xml": (
        ["The glacier\ufffd retreats \ufffd in summer.", "Bread prices rose."],
        "read in spite of broken XML: not well-formed (invalid token) in line 1",
    ),
    "one-bad-byte.xml": (
        ["café glacier", "Bread prices"],
        "read as windows-1252, which it does not say",
    ),
    "declared-us-ascii.xml": (["Gletscher schmelzen im Sömmer", "Bread"], ""),
    "shift-jis-of-windows.xml": (["氷河①が溶ける"], ""),
    "rss091-doctype.xml": (["The glacier retreats in summer.", "Bread prices rose again."], ""),
    "cut-off.xml": (
        ["The glacier retreats in summer."],
        "cut off: its root element does not end (entries before that: 1)",
    ),
    "jsonfeed.json": (["Glacier one", "Bread"], ""),
}


@pytest.mark.parametrize("name", CASES)
def test_what_servers_really_send(name: str) -> None:
    documents, lines = found(SAMPLES / "cases" / name)
    texts, line = CASES[name]
    assert [it.text.replace("\xa0", " ") for it in documents] == texts
    assert lines == ([f"{name}: {line}"] if line else [])


def test_a_feed_cut_anywhere_gives_the_entries_before(tmp_path: Path) -> None:
    whole = FEED.format(items(4))
    for end in range(0, len(whole), 7):
        documents, lines = found(written(tmp_path, "a.xml", whole[:end]), kind="feed")
        assert len(documents) == whole[:end].count("</item>")
        assert len(lines) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<description>", "<description>AT&T &nbsp;&bogus; &#1;&#xd800;&#99999999999; "),
        ("<description>", "<description>\x00\x08\x0b "),
        ("<description>", "<media:text>x</media:text><description>"),
        ("<description>", "<description><p>one<br>two "),
        ("<description>", "<description><![CDATA["),
        ("<description>d1", "<description><![CDATA[<p>&nbsp;d1"),
        ("<description>d2", "<description><![CDATA[d2"),
        (
            "<description>d2</description>",
            "<description><![CDATA[d2 ]]> &mdash; <![CDATA[.]]></description>",
        ),
        ("<description>", "<description a=b c>"),
        ("<description>", "<description link='a&b'>"),
        ("</rss>", "</rss>\n<!-- 3 ms --><script>x</script>"),
    ],
)
def test_flaws_cost_no_entry_and_are_one_line(tmp_path: Path, old: str, new: str) -> None:
    documents, lines = found(written(tmp_path, "a.xml", FEED.format(items(3)).replace(old, new)))
    assert [(it.key, it.title) for it in documents] == [(f"g{n}", f"t{n}") for n in range(3)]
    assert all(f"d{n}" in it.text for n, it in enumerate(documents))
    assert len(lines) <= 1


def test_entities_in_cdata_are_htmls_and_no_flaw(tmp_path: Path) -> None:
    body = "<![CDATA[<p>a&nbsp;&mdash; AT&T &lt;x&gt;</p>]]>"
    path = written(
        tmp_path, "a.xml", FEED.format(f"<item><description>{body}</description></item>")
    )
    assert ([it.text for it in found(path)[0]], found(path)[1]) == (["a — AT&T <x>"], [])
    flawed = FEED.format(f"<item><title>&eacute;</title><description>{body}</description></item>")
    (document,), _ = found(written(tmp_path, "b.xml", flawed))
    assert (document.title, document.text) == ("é", "a — AT&T <x>")


@pytest.mark.parametrize(
    "before",
    [
        "\ufeff",
        "\n\n  <?xml version='1.0'?>",
        "Warning: too old in line 3\n<?xml version='1.0'?>",
        "<br />\n<b>Notice</b>: x in <b>/a.php</b><br />\n<?xml version='1.0'?>",
        "<?xml version='1.0'?><?xml-stylesheet href='x'?><!-- <rss> -->\n",
        "<!DOCTYPE rss SYSTEM 'http://feeds.example/rss.dtd'>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_stands_before_the_root_is_passed_over(
    tmp_path: Path, before: str, encoding: str
) -> None:
    data = (before + FEED.format(items(2))).encode(encoding)
    documents, lines = found(written(tmp_path, "a.xml", data))
    assert ([it.key for it in documents], lines) == (["g0", "g1"], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("<svg><title>x</title></svg>", "XML, but no RSS or Atom feed (<svg>)"),
        ("<?xml version='1.0'?><urlset></urlset>", "XML, but no RSS or Atom feed (<urlset>)"),
        ("<?xml version='1.0'?><svg/>", "XML, but no RSS or Atom feed (<svg>)"),
        ("<opml version='2.0'></opml>", "XML, but no RSS or Atom feed (<opml>)"),
        ("<Error><Code>AccessDenied</Code></Error>", "XML, but no RSS or Atom feed (<Error>)"),
        ("<?xml version='1.0'?><!DOCTYPE html><html></html>", "an HTML page, in spite of its name"),
        ("<h1>502 Bad Gateway</h1>", "XML, but no RSS or Atom feed (<h1>)"),
        ("502 Bad Gateway", "empty, or no markup"),
        ("", "empty, or no markup"),
        ('{"error": 404}', "JSON, but no JSON Feed (--kind jsonl takes a value a line)"),
    ],
)
def test_what_is_no_feed_is_named(tmp_path: Path, data: str, reason: str) -> None:
    assert found(written(tmp_path, "a.xml", data)) == ([], [f"a.xml: {reason}"])


def test_other_xml_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for name, root in (("a.svg", "svg"), ("a.opml", "opml"), ("a", "urlset"), ("a.tei", "TEI")):
        path = written(tmp_path, name, f"<?xml version='1.0'?><{root}><title>x</title></{root}>")
        assert found(path) == ([], [f"{name}: XML, but no RSS or Atom feed (<{root}>)"])


def test_a_feed_without_entries_has_nothing(tmp_path: Path) -> None:
    for text in ("<rss/>", "<?xml version='1.0'?>\n<feed xmlns='x' />\n", FEED.format("")):
        assert found(written(tmp_path, "a.xml", text)) == ([], [])


def test_escaped_twice_and_base64_come_out_as_text(tmp_path: Path) -> None:
    atom = """<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>1</id>
        <title type="html">&amp;lt;b&amp;gt;Ice&amp;lt;/b&amp;gt;</title>
        <content type="html">&amp;lt;p&amp;gt;One&amp;lt;/p&amp;gt;</content></entry>
        <entry><id>2</id><content type="text/html" mode="base64">PHA+VHdvPC9wPg==</content></entry>
        <entry><id>3</id><content type="html">x &amp;lt; y</content></entry></feed>"""
    documents, lines = found(written(tmp_path, "a.xml", atom))
    assert contents(documents) == [("1", "Ice", "One"), ("2", "", "Two"), ("3", "", "x < y")]
    assert not lines


def test_dates_authors_and_tags(tmp_path: Path) -> None:
    rss = FEED.format(
        "<item><title>a</title><pubDate>Fri, 02 Jan 2026 05:04:05 +0200</pubDate>"
        "<author>ann@ice.example (Ann)</author><category>Ice</category>"
        "<category>Sea</category></item>"
        "<item><title>b</title><pubDate>yesterday</pubDate></item>"
    )
    atom = (
        '<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>a</title>'
        "<author><name>Ann</name></author><author><name>Bo</name></author>"
        '<updated>2026-01-02T03:04:05.6Z</updated><category term="i" label="Ice"/></entry></feed>'
    )
    feed = {
        "version": "https://jsonfeed.org/version/1",
        "items": [
            {"url": "u", "title": "a", "date_published": "2026-01-02T05:04:05+02:00",
             "author": {"name": "Ann"}, "tags": ["Ice", 7]},
            {"id": 5, "title": "b", "date_published": "yesterday", "authors": 3, "tags": "x"},
            "nothing",
        ],
    }  # fmt: skip
    when = "2026-01-02T03:04:05Z"
    (one, two), _ = found(written(tmp_path, "a.xml", rss))
    assert (one.date, one.author, one.tags) == (when, "Ann", ("Ice", "Sea"))
    assert (two.date, two.author, two.tags) == ("", "", ())
    (one,), _ = found(written(tmp_path, "b.xml", atom))
    assert (one.date, one.author, one.tags) == (when, "Ann, Bo", ("Ice",))
    (one, two), lines = found(written(tmp_path, "c.json", json.dumps(feed)))
    assert (one.key, one.date, one.author, one.tags) == ("u", when, "Ann", ("Ice",))
    assert (two.key, two.date, two.author, two.tags) == ("5", "", "", ())
    assert lines == ["c.json, entry 3: no JSON object"]


def test_json_feeds_by_content_and_by_name(tmp_path: Path) -> None:
    feed = (SAMPLES / "cases" / "jsonfeed.json").read_bytes()
    for name in ("a.json", "b", "c.xml"):
        assert len(found(written(tmp_path, name, feed))[0]) == 2
    documents, lines = found(written(tmp_path, "a.json", feed[:-20]))
    assert not documents
    assert lines[0].startswith("a.json: no JSON, or cut off: ")
    deep = b"[" * 100_000
    assert "no JSON" in found(written(tmp_path, "a.json", deep))[1][0]


def test_keys_are_what_the_feed_says(tmp_path: Path) -> None:
    """An index that was made before knows the entries by these."""
    atom = """<feed xmlns="http://www.w3.org/2005/Atom" xml:base="http://base.example/">
        <entry xml:base="x/"><id>rel/1</id><link href="a"/><title>a</title></entry>
        <entry><link rel="self" href="s"/><link type="application/pdf" href="a.pdf"/>
            <link href="b"/><title>b</title></entry>
        <entry><title>c</title></entry><entry><id>rel/1</id><title>d</title></entry></feed>"""
    assert [it.key for it in found(written(tmp_path, "a.xml", atom))[0]] == [
        "rel/1", "a.pdf", "3", "rel/1 (4)",
    ]  # fmt: skip
    rss = FEED.format(
        "<item><guid> a&amp;b </guid><link>l</link><title>a</title></item>"
        "<item><link>http://x/?a=1&amp;copy=2</link><title>b</title></item>"
        "<item><guid></guid><title>c</title></item>"
    )
    assert [it.key for it in found(written(tmp_path, "b.xml", rss))[0]] == [
        "a&b", "http://x/?a=1&copy=2", "3",
    ]  # fmt: skip


LAUGHS = (
    "<!DOCTYPE rss ["
    + '<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 11))
    + "]>"
    + FEED.format("<item><title>&a10;</title></item>")
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "before", ["", "<?xml version='1.0'?>", "\n<!-- x --><?p?>\n", "<!-- <rss > -->", "junk "]
)
def test_a_billion_laughs(tmp_path: Path, before: str, encoding: str) -> None:
    reason = "a document type that declares entities, which feeds must not have"
    for laughs in (LAUGHS, LAUGHS.replace("<!ENTITY a0", '<!ENTITY % x "y"> <!ENTITY a0')):
        path = written(tmp_path, "a.xml", (before + laughs).encode(encoding))
        assert found(path) == ([], [f"a.xml: {reason}"])


def test_no_socket_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a socket")

    path = written(tmp_path, "a.xml", "http://127.0.0.1:9/feed.xml")
    good = written(tmp_path, "b.xml", FEED.format(items(1)))
    found(good)
    monkeypatch.setattr("socket.socket.__init__", refused)
    assert found(path)[1] == ["a.xml: empty, or no markup"]
    assert len(found(good)[0]) == 1


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
        (
            "<a " + " ".join(f"b{n}='x'" for n in range(2000)) + "/>",
            "an element with more than 1,000 attributes",
        ),
    ],
)
def test_hostile_feeds_are_stopped(tmp_path: Path, inside: str, reason: str) -> None:
    path = written(tmp_path, "a.xml", FEED.format(items(1) + inside))
    documents, lines = found(path)
    assert len(documents) == 1
    assert lines == [f"a.xml: {reason} (entries before that: 1)"]


HOSTILE = {
    "&": lambda size: "&" * size,
    "<!--": lambda size: "<!--" * (size // 4),
    "<![CDATA[": lambda size: "<![CDATA[" * (size // 9),
    "<": lambda size: "<" * size,
    "</a>": lambda size: "</a>" * (size // 4),
    "<a b='": lambda size: "<a b='" * (size // 6),
    "<x:a>": lambda size: "<x:a>" * (size // 5),
    "<aaa": lambda size: f"<![CDATA[<{'a' * size}",
    "CDATA": lambda size: f"<![CDATA[<d><![CDATA[{'</d>' * (size // 4)}]]>",
    "author": lambda size: f"<author>{'a' * size}</author>",
    "categories": lambda size: "".join(f"<category>{n}</category>" for n in range(size // 25)),
    "keywords": lambda size: f"<keywords>{','.join(map(str, range(size // 6)))}</keywords>",
    "namespaces": lambda size: "".join(f'<a xmlns:p{n}="u{n}"/>' for n in range(size // 25)),
    "bases": lambda size: '<a xml:base="a/"><b>' * (size // 20),
    "date": lambda size: f"<pubDate>{'1 ' * (size // 2)}</pubDate>",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_length_of_a_hostile_feed(tmp_path: Path, name: str) -> None:
    for end in ("</item>", ""):

        def source(size: int, end: str = end) -> str:
            return FEED.format(f"<item><title>t</title>{HOSTILE[name](size)}{end}")

        def read(text: str) -> None:
            found(written(tmp_path, "a.xml", text))

        assert eight_times_as_much(source, read, 4_000)


def test_deep_html_within_an_entry(tmp_path: Path) -> None:
    deep = "<div>" * 20_000 + "text" + "</div>" * 20_000
    path = written(
        tmp_path,
        "a.xml",
        FEED.format(f"<item><description><![CDATA[{deep}]]></description></item>"),
    )
    assert [it.text for it in found(path)[0]] == ["text"]
    assert [it.text for it in found(written(tmp_path, "a.html", deep))[0]] == ["text"]


def test_an_entry_beyond_the_limit_costs_itself_only(tmp_path: Path) -> None:
    long = f"<item><title>long</title><description>{'x ' * 3000}</description></item>"
    path = written(tmp_path, "a.xml", FEED.format(items(1) + long + items(1)))
    documents, lines = found(path, longest_text=1000)
    assert [it.title for it in documents] == ["t0", "t0"]
    assert lines == ["a.xml, entry 2: longer than 1,000 characters (see --max-text, --lines)"]


def test_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.xml", FEED.format(items(2000)))
    documents, lines = found(path)
    assert contents(documents) == [(f"g{n}", f"t{n}", f"d{n}") for n in range(2000)]
    assert not lines
    monkeypatch.setattr("asterisk.sources.feeds.MOST_ENTRIES", 10)
    documents, lines = found(path)
    assert len(documents) == 10
    assert lines == ["a.xml: more than 10 entries (entries before that: 10)"]


def test_a_feed_without_the_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "feedparser", None)
    written(tmp_path, "a.xml", FEED.format(items(1)))
    documents, lines = found(written(tmp_path, "b.txt", "text").parent)
    assert [it.text for it in documents] == ["text"]
    assert "pip install 'asterisk-edge[feeds]'" in lines[0]


@pytest.mark.parametrize(
    "name", ["a.xml.gz", "a.gz", "a.xml", "a.txt.gz", "a.csv.gz", "a.jsonl.gz"]
)
def test_what_gzip_has_compressed_is_read(tmp_path: Path, name: str) -> None:
    text = {
        "a.txt.gz": "t0", "a.csv.gz": "text\nt0\n", "a.jsonl.gz": '"t0"\n',
    }.get(name, FEED.format(items(1)))  # fmt: skip
    documents, lines = found(written(tmp_path, name, gzip.compress(text.encode())))
    assert [it.title or it.text for it in documents] == ["t0"]
    assert not lines


def test_gzip_that_is_cut_or_hostile(tmp_path: Path) -> None:
    text = "".join(f'"text {n} {n * n}"\n' for n in range(2000)).encode()
    packed = gzip.compress(text)
    path = written(tmp_path, "a.jsonl.gz", packed[: len(packed) // 2])
    documents, lines = found(path)
    assert 100 < len(documents) < 2000
    assert all(it.text == f"text {n} {n * n}" for n, it in enumerate(documents))
    assert lines == ["a.jsonl.gz: compressed by gzip, and cut off"]
    # A beginning would be found as if it were the whole.
    path = written(tmp_path, "a.txt.gz", packed[: len(packed) // 2])
    assert found(path) == ([], ["a.txt.gz: compressed by gzip, and cut off"])
    bomb = gzip.compress(b"x" * (5 << 20))
    path = written(tmp_path, "b.jsonl.gz", bomb)
    assert found(path, largest_file=1 << 20) == (
        [], ["b.jsonl.gz: more than 1.0 MB unpacked (see --max-file)"],
    )  # fmt: skip
    path = written(tmp_path, "c.jsonl.gz", gzip.compress(packed))
    assert found(path) == ([], ["c.jsonl.gz: compressed by gzip twice, not read"])
    path = written(tmp_path, "d.gz", b"\x1f\x8bnonsense")
    assert found(path) == ([], ["d.gz: compressed by gzip, and damaged"])


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ("Fri, 02 Jan 2026 03:04:05 EST", "2026-01-02T08:04:05Z"),
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("2026/01/02", ""),  # feedparser would take today's month or day for what it does not see
        ("2026-123", ""),
        ("2026年1月2日", ""),
        ("1767322000", ""),
        ("0000-00-00", ""),
        ("2026-13-45", ""),
    ],
)
def test_a_date_is_what_the_feed_says_or_none(tmp_path: Path, said: str, date: str) -> None:
    item = f"<item><guid>1</guid><title>T</title><pubDate>{said}</pubDate></item>"
    feed = f"<rss version='2.0'><channel>{item}</channel></rss>"
    documents, _ = found(written(tmp_path, "a.xml", feed))
    assert [it.date for it in documents] == [date]
