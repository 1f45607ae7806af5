"""Foreign text made fit to be shown on a terminal."""

from __future__ import annotations

_JOINERS = "\u200c\u200d"  # letters of some scripts need them


def printable(text: str) -> str:
    """Return ``text`` on one line: every run of white space and of control characters is a space.

    Escape sequences, changes of direction and other invisible characters do not survive.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(
        "".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in text).split()
    )


def escaped(text: str) -> str:
    """Return ``text`` with escapes for what does not print: different texts stay different."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
