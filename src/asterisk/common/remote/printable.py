"""What another machine says, made fit to be shown."""

from __future__ import annotations

from typing import Any

from asterisk.common.printable import printable as on_one_line

LONGEST = 300  # characters of a text
DEEPEST = 6


def printable(text: str) -> str:
    """Return ``text`` on one line, without control characters and not for ever long."""
    return on_one_line(text[: 4 * LONGEST])[:LONGEST]


def plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` from JSON with its texts `printable`; ValueError if it is too deep."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {printable(key): plain(item, depth + 1) for key, item in value.items()}
    return value
