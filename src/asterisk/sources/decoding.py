"""Bytes to text: a byte order mark, what the file declares, UTF-8, what the user gives."""

from __future__ import annotations

import codecs
import re

from asterisk.sources.document import Unreadable

# Codecs that are no character sets, or whose cost grows faster than the text.
_REFUSED = {
    "idna", "mbcs", "oem", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7",
}  # fmt: skip
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What browsers take these to mean (https://encoding.spec.whatwg.org/#names-and-labels).
_MEANT = {"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "gb2312": "gbk"}


def known(name: str) -> str | None:
    """Return Python's name of a character set, None if there is none by that name."""
    try:
        b"a".decode(name, "replace")
        found = codecs.lookup(name)
    except (LookupError, ValueError, TypeError):
        return None
    if found.name.replace("-", "_") in _REFUSED or found.incrementaldecoder is None:
        return None
    # These two need a mark, and a marked file is read by its mark.
    return f"{found.name}-le" if found.name in {"utf-16", "utf-32"} else found.name


def marked(head: bytes) -> tuple[str, int] | None:
    """Return the encoding that a byte order mark tells, and the mark's length."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    return None


def wide(encoding: str | None) -> bool:
    """Tell whether an encoding has NUL bytes in common text."""
    return ((encoding and known(encoding)) or "").startswith(("utf-16", "utf-32"))


def declared(pattern: re.Pattern[bytes], head: bytes) -> str | None:
    """Return the encoding that ``pattern``'s group finds in a file's beginning, as browsers do.

    UTF-16 that could be read as ASCII up to there is none. Unreadable for an unknown name.
    """
    match = pattern.search(head[:2048])
    if match is None:
        return None
    name = match.group(1).decode("ascii", "replace")
    found = known(name)
    if found is None:
        raise Unreadable(f"says it is in {name[:40]!r}, which is unknown (see --encoding)")
    return "utf-8" if wide(found) else _MEANT.get(found, found)


def decode(raw: bytes, encoding: str | None, declaration: str | None = None) -> str:
    """Return text whose lines end in line feeds only.

    Unreadable for bytes that are nothing of what they may be.
    """
    mark = marked(raw)
    if mark is not None:
        text = _strictly(raw[mark[1] :], mark[0])
    elif wide(encoding) and b"\0" in raw:
        text = _strictly(raw, known(str(encoding)) or "utf-8")
    elif b"\0" in raw:
        raise Unreadable(f"binary (a NUL at byte {raw.index(0) + 1:,})")
    else:
        text = _guessed(raw, encoding, declaration)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _guessed(raw: bytes, encoding: str | None, declaration: str | None) -> str:
    try:
        return raw.decode(declaration or "utf-8")
    except UnicodeDecodeError as failure:
        if encoding is not None and declaration is None:
            return _strictly(raw, encoding)
        raise _not(declaration or "utf-8", failure.start) from None


def _strictly(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as failure:
        raise _not(encoding, failure.start) from None


def _not(encoding: str, at: int) -> Unreadable:
    return Unreadable(f"not {encoding.upper()} (byte {at + 1:,}; see --encoding)")
