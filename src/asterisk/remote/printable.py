"""What another machine says, made fit to be shown."""

from __future__ import annotations

LONGEST = 300  # characters of a text


def printable(text: str) -> str:
    """Return ``text`` on one line, without control characters and not for ever long."""
    clean = "".join(char if char.isprintable() else " " for char in text[: 4 * LONGEST])
    return " ".join(clean.split())[:LONGEST]
