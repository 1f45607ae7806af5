"""Encodings as browsers read them, in each kind of file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asterisk.sources.files import ERRORS, codec_of
from sources.helpers import contents, found, written

# (declared, how it is really encoded, text)
DECLARED = [
    ("us-ascii", "utf-8", "Fürst"),
    ("us-ascii", "cp1252", "Fürst – “so”"),
    ("latin-1", "cp1252", "Fürst – “so” €"),
    ("ISO-8859-1", "utf-8", "Fürst"),
    ("iso-8859-9", "cp1254", "Şişli – €"),
    ("shift_jis", "cp932", "氷河①が溶ける"),
    ("x-sjis", "cp932", "髙い～㈱"),
    ("windows-31j", "cp932", "①"),
    ("euc-jp", "euc_jp", "氷河が溶ける"),
    ("iso-2022-jp", "iso2022_jp", "氷河が溶ける"),
    ("euc-kr", "cp949", "뷁 빙하"),
    ("ks_c_5601-1987", "cp949", "뷁 빙하"),
    ("big5", "big5hkscs", "冰川嘅"),
    ("gb2312", "gb18030", "冰川镕€"),
    ("x-gbk", "gb18030", "冰川镕"),
    ("tis-620", "cp874", "ธาร – €"),
    ("iso-8859-11", "cp874", "ธาร…"),
    ("koi8-r", "koi8_r", "ледник"),
    ("iso-8859-8-i", "iso8859_8", "קרחון"),
    ("x-mac-cyrillic", "mac_cyrillic", "ледник"),
    ("unicode-1-1-utf-8", "utf-8", "ледник"),
    ("utf-16", "utf-8", "ледник"),
]
FEED = "<?xml version='1.0' encoding='{}'?><rss><item><title>{}</title></item></rss>"
ATOM = '<?xml version="1.0" encoding="{}"?><feed xmlns="http://www.w3.org/2005/Atom"><entry><title>{}</title></entry></feed>'
PAGE = "<html><head><meta charset={}></head><body>{}</body></html>"
PAGE_4 = '<meta http-equiv="Content-Type" content="text/html; charset={}"><p>{}'


@pytest.mark.parametrize(
    ("name", "pattern"), [("a.xml", FEED), ("a.atom", ATOM), ("a.html", PAGE), ("b.html", PAGE_4)]
)
def test_labels_mean_what_browsers_take_them_for(tmp_path: Path, name: str, pattern: str) -> None:
    for label, encoding, text in DECLARED:
        path = written(tmp_path, name, pattern.format(label, text).encode(encoding))
        documents, lines = found(path)
        assert ([it.text for it in documents], lines) == ([text], []), label


def test_every_label_of_the_standard_is_known() -> None:
    same = {"iso-8859-8-i": "iso8859-8", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}
    for line in (Path(__file__).parent / "labels.txt").read_text().splitlines():
        name, _, labels = line.partition(": ")
        for label in labels.split():
            assert codec_of(label) == codec_of(same.get(name, name)) != None, label  # noqa: E711
            assert codec_of(f" {label.upper()}\n") == codec_of(label)
    assert [codec_of(it) for it in ("nonsense", "utf-7", "zip", "idna", "")] == [None] * 5


def test_bytes_without_a_character_are_controls_and_others_cost_themselves() -> None:
    read = {
        "cp1252": (b"\x81\x8d\x8f\x90\x9d", "\x81\x8d\x8f\x90\x9d"),
        "cp1253": (b"a\xd2b", "a\ufffdb"),
        "cp874": (b"\xdb\x81", "\ufffd\x81"),
        "cp932": (b"\x81<b>\x82\xa0", "\ufffd<b>あ"),
        "gb18030": (b"\xff\xb0\xa1<", "\ufffd啊<"),
        "utf-8": (b"caf\xe9 \xe3\x81 \x93so\x94", "café \ufffd “so”"),
        "utf-16-le": (b"a\0\0\xdcb\0c", "a\ufffdb\ufffd"),
    }
    for encoding, (data, text) in read.items():
        assert data.decode(encoding, ERRORS) == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from("あいう漢字かな東京"), min_size=20, max_size=60),
    at=st.integers(0, 400),
    bad=st.sampled_from([0xFF, 0xC0, 0x80]),
)
def test_one_bad_byte_costs_at_most_its_neighbour(
    tmp_path: Path, text: str, at: int, bad: int
) -> None:
    data = text.encode()
    at = min(at, len(data))
    path = written(tmp_path, "a.txt", data[:at] + bytes([bad]) + data[at:])
    (document,), lines = found(path)
    assert sum(it not in text for it in document.text) <= 4  # the character it stands in
    assert len(document.text.replace("\ufffd", "")) >= len(text) - 1
    assert len(lines) == 1
    assert "not UTF-8" in lines[0]


GUESSED = {
    "windows-1251": "Ледник отступает летом, и хлеб дорожает.",
    "windows-1252": "Le café est fermé – l'été à la forêt.",
    "koi8-r": "Ледник отступает летом, и хлеб дорожает.",
    "cp932": "氷河が溶ける。パンの値段が上がった。",
    "euc_jp": "氷河が溶ける。パンの値段が上がった。",
    "cp949": "빙하가 여름에 녹는다. 빵값이 올랐다.",
    "gb18030": "冰川在夏天融化。面包涨价了。",
    "windows-1253": "Ο παγετώνας υποχωρεί το καλοκαίρι.",
}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a.txt", "{}\n"),
        ("a.md", "# x\n{}"),
        ("a.html", "<p>{}"),
        ("a.xml", "<rss><item><title>{}</title></item></rss>"),
        ("a.csv", 'id,text\n1,"{}"\n'),
        ("a.tsv", "id\ttext\n1\t{}\n"),
        ("a.jsonl", '{{"text": "{}"}}\n'),
    ],
)
def test_what_declares_nothing_is_guessed_and_told(tmp_path: Path, name: str, pattern: str) -> None:
    for encoding, text in GUESSED.items():
        path = written(tmp_path, name, pattern.format(text).encode(encoding))
        documents, lines = found(path)
        assert text in documents[0].text, (encoding, lines)
        assert lines == [f"{name}: read as {encoding}, which it does not say"]
        (given,), lines = found(path, encoding=encoding)
        assert text in given.text
        assert not lines


def test_without_the_library_it_is_windows_1252_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    (document,), lines = found(written(tmp_path, "a.txt", "café – plain".encode("cp1252")))
    assert document.text == "café – plain"
    assert lines == [
        "a.txt: read as windows-1252, which it does not say (charset_normalizer is not installed; "
        "install it with: pip install 'asterisk-edge[encodings]')"
    ]


def test_a_label_nobody_knows_is_as_none(tmp_path: Path) -> None:
    for name, pattern in (("a.xml", FEED), ("a.html", PAGE)):
        documents, lines = found(written(tmp_path, name, pattern.format("x-none", "Fürst")))
        assert [it.text for it in documents] == ["Fürst"]
        assert lines == [f"{name}: says it is in 'x-none', which is unknown"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_known_by_its_nuls(tmp_path: Path, encoding: str) -> None:
    texts = {
        "a.txt": "some Latin text – 東",
        "a.csv": "id,text\n1,some Latin text – 東\n",
        "a.jsonl": '{"text": "some Latin text – 東"}\n',
        "a.xml": FEED.format("utf-16", "some Latin text – 東"),
        "a.html": PAGE.format("utf-16", "some Latin text – 東"),
    }
    for name, text in texts.items():
        documents, lines = found(written(tmp_path, name, text.encode(encoding)))
        assert [it.text for it in documents] == ["some Latin text – 東"]
        assert lines == [f"{name}: read as {encoding}, which it does not say"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_counts_more_than_what_is_declared(tmp_path: Path, encoding: str) -> None:
    for name, pattern in (("a.xml", FEED), ("a.html", PAGE)):
        path = written(tmp_path, name, pattern.format("koi8-r", "東京").encode(encoding))
        assert [[it.text for it in found(path)[0]], found(path)[1]] == [["東京"], []]


def test_line_ends_of_old_macs_are_line_ends(tmp_path: Path) -> None:
    files = {
        "a.txt": "one\rtwo\r\nthree\nfour",
        "a.jsonl": '"one"\r"two"\r\n"three"\n"four"',
        "a.tsv": "text\tid\rone\t1\rtwo\t2\r\nthree\t3\nfour\t4",
        "a.csv": 'text,id\rone,1\rtwo,2\r\n"three",3\nfour,4',
    }
    for encoding in ("utf-8", "utf-16"):
        for name, text in files.items():
            documents, lines = found(written(tmp_path, name, text.encode(encoding)), lines=True)
            assert [it.text for it in documents] == ["one", "two", "three", "four"]
            assert not lines
    path = written(tmp_path, "b.csv", 'text\r"a\nb"\rc\r')
    assert contents(found(path)[0]) == [("2", "", "a\nb"), ("4", "", "c")]


def test_nothing_more_is_imported_for_utf_8(tmp_path: Path) -> None:
    written(tmp_path, "a.txt", "Fürst")
    script = (
        "import sys; from pathlib import Path; from asterisk.sources import documents\n"
        f"assert len(list(documents([Path({str(tmp_path)!r})]))) == 1\n"
        "print(sorted({'charset_normalizer', 'feedparser', 'gzip'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_text_cut_within_its_last_character_is_utf8(tmp_path: Path) -> None:
    documents, _ = found(written(tmp_path, "a.txt", "Preis: 5 € €".encode()[:-1]))
    assert documents[0].text == "Preis: 5 € \ufffd"
    documents, _ = found(written(tmp_path, "a.txt", "日本".encode()[:-1]))
    assert documents[0].text == "日\ufffd"
