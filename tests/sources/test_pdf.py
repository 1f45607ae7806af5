"""PDF files to text, by pypdf."""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.sources import pdf
from sources.helpers import found, written

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def made(*pages: bytes, about: bytes = b"", objects: tuple[bytes, ...] = ()) -> bytes:
    """Return a PDF file with these content streams, a page each, written as ISO 32000 has it.

    The font is object 3; what is in ``objects`` follows it, from 4 on.
    """
    kids = range(4 + len(objects), 4 + len(objects) + 2 * len(pages), 2)
    body = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % kid for kid in kids)),
        FONT,
        *objects,
    ]
    for kid, content in zip(kids, pages, strict=True):
        packed = zlib.compress(content)
        body += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F 3 0 R >> /XObject << /X 4 0 R /Y 5 0 R >> >> >>"
            % (kid + 1),
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed),
        ]
    out, offsets = b"%PDF-1.7\n", []
    for number, content in enumerate(body, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R /Info << %s >> >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (len(body) + 1, table, len(body) + 1, about, len(out))
    )


def lines_of(*lines: str) -> bytes:
    shown = b" T* ".join(b"(%s) Tj" % line.encode("cp1252") for line in lines)
    return b"BT /F 12 Tf 14 TL 72 700 Td %s ET" % shown


def test_the_pages_are_one_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    about = (
        b"/Title (On ice) /Author (A. Writer) /Keywords (alps, snow; ice) "
        b"/CreationDate (D:20260102030405+02'00')"
    )
    data = made(
        lines_of("Glaciers are re-", "treating in the", "Alps."), lines_of("Café"), about=about
    )
    documents, lines = found(written(tmp_path, "a.pdf", data))
    assert not lines
    assert [it.text for it in documents] == ["Glaciers are retreating in the\nAlps.\n\nCafé"]
    (document,) = documents
    assert (document.key, document.title, document.author) == ("", "On ice", "A. Writer")
    assert (document.date, document.tags) == ("2026-01-02T01:04:05Z", ("alps", "snow", "ice"))
    named_otherwise, _ = found(written(tmp_path, "a", data))
    assert [it.text for it in named_otherwise] == [document.text]
    assert capfd.readouterr().err == ""


def test_a_file_that_matplotlib_wrote(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.text(0.1, 0.5, "Moraines and eskers")
    out = io.BytesIO()
    figure.savefig(out, format="pdf", metadata={"Title": "Landforms"})
    documents, lines = found(written(tmp_path, "a.pdf", out.getvalue()))
    assert not lines
    assert [(it.title, it.text) for it in documents] == [("Landforms", "Moraines and eskers")]


@pytest.mark.parametrize(
    "title", ["Microsoft Word - thesis.doc", "untitled", "C:/tmp/a.indd", "paper.dvi"]
)
def test_a_file_name_is_no_title(tmp_path: Path, title: str) -> None:
    data = made(lines_of("text"), about=b"/Title (%s) /CreationDate (never)" % title.encode())
    (document,), lines = found(written(tmp_path, "a.pdf", data))
    assert (document.title, document.date, lines) == ("", "", [])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("gla-\nciers", "glaciers"),
        ("Rhine-\nWestphalia", "Rhine-\nWestphalia"),
        ("1-\n2 a -\nb", "1-\n2 a -\nb"),
        ("so\xad\nft so\xadft", "soft soft"),
        ("\ufb01eld e\ufb03cient", "field efficient"),
        (" a \n b", "a\nb"),
    ],
)
def test_words_are_whole(text: str, plain: str) -> None:
    assert pdf.join_words(text) == plain


def encrypted(password: str, algorithm: str) -> bytes:
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=io.BytesIO(made(lines_of("secret"))))
    writer.encrypt(password, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_password_is_asked_for_where_reading_takes_one(tmp_path: Path) -> None:
    documents, lines = found(written(tmp_path, "a.pdf", encrypted("", "RC4-128")))
    assert [it.text for it in documents] == ["secret"]  # locked against changes only
    assert not lines
    documents, lines = found(written(tmp_path, "b.pdf", encrypted("x", "RC4-128")))
    assert (documents, lines) == ([], ["b.pdf: encrypted: it takes a password"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no PDF, or damaged: "),
        (b"%PDF-1.7 \n", "no PDF, or damaged: "),
        (b"<html>not found</html>", "no PDF, or damaged: "),
        (made(lines_of("text"))[:-60], "no PDF, or damaged: "),
        (made(b"0 0 m 9 9 l S", b""), "no text, as in scanned pages"),
        (made(), "no text, as in scanned pages"),
    ],
)
def test_what_has_no_text_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes, reason: str
) -> None:
    documents, lines = found(written(tmp_path, "a.pdf", data))
    assert not documents
    assert len(lines) == 1
    assert lines[0].startswith(f"a.pdf: {reason}")
    assert capfd.readouterr().err == ""


def test_a_wrong_table_of_objects_is_mended(tmp_path: Path) -> None:
    data = made(lines_of("text")).replace(b"xref\n0 ", b"xref\n7 ", 1)
    documents, _ = found(written(tmp_path, "a.pdf", data))
    assert [it.text for it in documents] == ["text"]


def test_a_damaged_page_is_one_line_and_the_others_are_read(tmp_path: Path) -> None:
    data = made(lines_of("one"), b"[ " * 5000 + lines_of("two"), lines_of("three"))
    documents, lines = found(written(tmp_path, "a.pdf", data))
    assert [it.text for it in documents] == ["one\n\nthree"]
    assert len(lines) == 1
    assert lines[0].startswith("a.pdf, page 2: damaged: ")


def form(content: bytes) -> bytes:
    return (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Length %d /Resources << /Font << "
        b"/F 3 0 R >> /XObject << /X 4 0 R /Y 5 0 R >> >> >>\nstream\n%s\nendstream"
        % (len(content), content)
    )


def test_work_and_text_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = (form(lines_of("a" * 90)), form(b"/X Do " * 30))
    path = written(tmp_path, "a.pdf", made(b"/Y Do " * 30, lines_of("end"), objects=forms))
    documents, lines = found(path, longest_text=10_000)
    assert (documents, lines) == ([], ["a.pdf: longer than 10,000 characters (see --max-text)"])
    monkeypatch.setattr(pdf, "SECONDS", 0.0)
    assert found(path) == ([], ["a.pdf: takes more than 0 s to read"])
    documents, lines = found(path, largest_file=100)
    assert (len(documents), len(lines)) == (0, 1)
    assert "see --max-file" in lines[0]


def test_without_pypdf_a_file_is_skipped_by_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    documents, lines = found(written(tmp_path, "a.pdf", made(lines_of("text"))))
    assert not documents
    assert lines == [
        "a.pdf: pypdf is not installed; install it with: pip install 'asterisk-edge[pdf]'"
    ]


WHOLE = made(lines_of("one"), lines_of("two"))


@settings(max_examples=60)
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.binary(min_size=1, max_size=3))
def test_a_changed_file_is_read_or_one_line_a_page(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: bytes
) -> None:
    data = WHOLE[:at] + byte + WHOLE[at + len(byte) :]
    documents, lines = found(written(tmp_path_factory.mktemp("pdf"), "a.pdf", data))
    assert len(documents) + len(lines) in {1, 2, 3}
