"""Plain text, lines, encodings, kinds and bounds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from asterisk.sources import digest
from sources.helpers import contents, found, written

TEXT = "Grüße – naïve café, 東京\nzweite Zeile"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_a_mark_shows(tmp_path: Path, encoding: str) -> None:
    documents, lines = found(written(tmp_path, "a.txt", TEXT.encode(encoding)))
    assert contents(documents) == [("", "", TEXT)]
    assert not lines


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize(("name", "kind"), [("a.jsonl", None), ("a.txt", "lines"), ("a.tsv", None)])
def test_streams_with_a_byte_order_mark(
    tmp_path: Path, encoding: str, name: str, kind: str | None
) -> None:
    text = {"a.jsonl": '"é 東"\n"b"\n', "a.txt": "é 東\nb\n", "a.tsv": "text\né 東\nb\n"}[name]
    documents, lines = found(written(tmp_path, name, text.encode(encoding)), kind=kind)
    assert [it.text for it in documents] == ["é 東", "b"]
    assert not lines


def test_the_users_encoding_is_for_what_is_not_utf_8(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "a.html"):
        path = written(tmp_path, name, "łódź".encode("cp1250"))
        assert found(path, encoding="windows-1250")[0][0].text == "łódź"
        good = written(tmp_path, name, "łódź")
        assert found(good, encoding="windows-1250")[0][0].text == "łódź"
    path = written(tmp_path, "a.txt", "東京".encode("utf-16-le"))
    assert found(path, encoding="utf-16", kind="lines")[0][0].text == "東京"


def test_one_bad_byte_costs_one_byte(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "één\n".encode() + b"\xff\xfe\n\nthree caf\xe9\r\n")
    documents, lines = found(path, lines=True)
    assert contents(documents) == [
        ("1", "", "één"),
        ("2", "", "\ufffd\ufffd"),
        ("4", "", "three café"),
    ]
    assert lines == ["a.txt: 3 bytes of it not UTF-8"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\0", "binary (a NUL at byte 5)"),
        (b"x" * 9000 + b"\0", "binary (a NUL at byte 9,001)"),
        (b"PK\x03\x04....", "a ZIP archive or office document, not read"),
        (b"SQLite format 3\0", "a SQLite database (--sqlite FILE --query SQL reads one), not read"),
        (b" \n", "no text"),
        (b"", "no text"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    assert found(written(tmp_path, "a.txt", data)) == ([], [f"a.txt: {reason}"])


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("page", "<!-- c --><!DOCTYPE html><p>a &amp; b", "a & b"),
        (
            "news",
            "<?xml version='1.0'?><rss><item><description>x &amp;lt; y</description></item></rss>",
            "x < y",
        ),
        ("notes", "<b>no page</b>", "<b>no page</b>"),
        ("code.py", "a < b\n", "a < b"),
    ],
)
def test_kinds_by_content(tmp_path: Path, name: str, data: str, text: str) -> None:
    assert found(written(tmp_path, name, data))[0][0].text == text


def test_json_as_a_whole_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '{"text": "x"}\n')
    assert "no JSON Feed (--kind jsonl takes a value a line)" in found(path)[1][0]
    assert found(path, kind="jsonl")[0][0].text == "x"


def test_files_and_texts_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "big.txt", "")
    os.truncate(path, 100 << 20)  # sparse
    assert found(path)[1] == ["big.txt: 104.9 MB, more than 67.1 (see --max-file)"]
    path = written(tmp_path, "long.txt", "ab " * 10)
    assert not found(path, longest_text=30)[1]
    assert found(path, longest_text=29) == (
        [],
        ["long.txt: longer than 29 characters (see --max-text, --lines)"],
    )


def test_a_line_beyond_the_limit_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asterisk.sources.files.LONGEST_LINE", 1 << 20)
    data = b"first\n" + b"x" * (3 << 20) + b"\nlast"
    for encoded in (data, data.decode().encode("utf-16")):
        documents, lines = found(written(tmp_path, "a.txt", encoded), lines=True)
        assert contents(documents) == [("1", "", "first"), ("3", "", "last")]
        assert lines == ["a.txt, line 2: longer than 1 MB"]


def test_digest() -> None:
    assert digest("Tïtle", "text") == hashlib.sha256("Tïtle\0text".encode()).hexdigest()
    assert digest("a", "b") != digest("ab", "")


def test_what_cannot_be_stored_is_replaced(tmp_path: Path) -> None:
    lines = [
        r'{"text": "a\ud800b\u0000c", "title": "\udfff", "id": "\u0000"}',
        r'{"text": "y", "id": "\ufffd"}',
    ]
    (document, other), _ = found(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert other.key == "\ufffd (2)"
    assert (document.text, document.title, document.key) == ("a\ufffdb\ufffdc", "\ufffd", "\ufffd")
    assert document.digest == digest(document.title, document.text)
