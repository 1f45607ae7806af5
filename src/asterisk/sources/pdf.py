"""PDF files: the text of the pages is one document."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator
from typing import Any
from unicodedata import normalize

from asterisk.common.errors import one_line
from asterisk.common.plugins import require
from asterisk.sources.document import Unreadable
from asterisk.sources.files import OpenFile, Piece
from asterisk.sources.html import iso_date

SECONDS = 60.0  # for a file, and again for each MB of it; what takes longer was made to
_HYPHEN = re.compile(r"(?<=[^\W\d_])(?:-\n(?=([^\W\d_]))|\xad\n?)")
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_NO_TITLE = re.compile(
    r"untitled.*|microsoft \w+ - .*|.*\.(?:docx?|dvi|html?|indd|odt|pdf|pptx?|ps|qxd|rtf|tex|txt)",
    re.IGNORECASE,
)


class _OutOfTime(BaseException):
    """No Exception, since pypdf goes on after those."""


def read_pdf(file: OpenFile) -> Iterator[Piece]:
    """Yield the file as one document; a page that cannot be read is reported."""
    pypdf = require("pypdf", "pdf")
    if not (logger := logging.getLogger("pypdf")).handlers:
        logger.addHandler(logging.NullHandler())  # else warnings go to stderr
    data = file.read()
    seconds = SECONDS * (1 + len(data) / 1e6)
    end = time.monotonic() + seconds

    def check_time(*_: Any) -> None:
        if time.monotonic() > end:
            raise _OutOfTime

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: it takes a password")
        text = _text(file, reader, check_time, pypdf.errors.DependencyError)
        names = ("title", "creation_date", "author", "keywords")
        title, date, author, keywords = (_value(reader, name) for name in names)
    except Unreadable:
        raise
    except _OutOfTime:
        raise Unreadable(f"takes more than {seconds:,.0f} s to read", temporary=True) from None
    except pypdf.errors.DependencyError:
        reason = "encrypted by AES; install what reads it with: pip install cryptography"
        raise Unreadable(reason, temporary=True) from None
    except Exception as failure:  # pypdf says that any may come
        raise Unreadable(f"no PDF, or damaged: {_reason(failure)}") from None
    if not text.strip():
        raise Unreadable("no text, as in scanned pages")
    title = "" if _NO_TITLE.fullmatch(title) else title
    tags = tuple(filter(None, map(str.strip, re.split("[,;]", keywords))))
    yield Piece("", "", title, text, iso_date(date), author, tags)


def _text(file: OpenFile, reader: Any, check_time: Any, missing: type[Exception]) -> str:
    """Return the pages' text; ``missing`` is pypdf's error for a package that it lacks."""
    text, limit = "", file.options.longest_text
    for number, page in enumerate(reader.pages, 1):
        check_time()
        try:
            text += join_words(page.extract_text(visitor_operand_before=check_time)) + "\n\n"
        except missing:
            raise
        except Exception as failure:
            file.skip(f"page {number}", f"damaged: {_reason(failure)}")
        if len(text) > limit:
            raise Unreadable(f"longer than {limit:,} characters (see --max-text)")
    return text


def join_words(text: str) -> str:
    """Return a page's text with words that a line's end parts, and letters set as one, whole."""
    text = _HYPHEN.sub(lambda it: "" if it[1] is None or it[1].islower() else it[0], text)
    text = _LIGATURE.sub(lambda it: normalize("NFKC", it[0]), text)
    return "\n".join(map(str.strip, text.split("\n"))).strip()


def _value(reader: Any, name: str) -> str:
    try:
        return str(getattr(reader.metadata, name) or "").strip()
    except Exception:  # as above
        return ""


def _reason(failure: Exception) -> str:
    return one_line(failure)[:200]
