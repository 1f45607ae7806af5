"""Folders on a device as a person writes them: ``/opt/asterisk`` or ``~/asterisk``."""

from __future__ import annotations

import re

from asterisk.errors import UsageError

DEFAULT = "~/.local/share/asterisk"
SERVICE = "/opt/asterisk"
LONGEST = 200
_FOLDER = re.compile(r"~?(?:/[A-Za-z0-9._+][A-Za-z0-9._+-]*)+")


def check(text: str) -> str:
    """Return ``text`` if it is a plain path, absolute or below ``~/``; UsageError, one line."""
    parts = text.split("/")
    if len(text) > LONGEST or not _FOLDER.fullmatch(text) or {".", ".."} & set(parts):
        raise UsageError(
            f"{text!r} is no folder to install in: an absolute path, or one that begins with ~/, "
            "of letters, digits and . _ + -"
        )
    return text


def is_absolute(text: str) -> bool:
    """Tell whether what a device answers is a plain absolute path as `check` takes it."""
    try:
        return check(text).startswith("/")
    except UsageError:
        return False
