"""HTML files: a page is one document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from asterisk.sources.decoding import text_of
from asterisk.sources.markup import page
from asterisk.sources.opening import Opened, Piece

_CHARSET = re.compile(
    rb"""(?:<meta[^>]{0,500}?charset\s*=\s*["']?|<\?xml[^>]{0,200}?encoding\s*=\s*["'])\s*"""
    rb"([\w.:+-]{1,40})",
    re.IGNORECASE,
)


def read_html(file: Opened) -> Iterator[Piece]:
    """Yield the page; a description that its text does not hold is the first paragraph."""
    found = page(text_of(file, _CHARSET), main=True)
    text = found.text
    if found.description and found.description not in text:
        text = f"{found.description}\n\n{text}"
    yield Piece("", "", found.title, text, found.date, found.author, found.tags)
