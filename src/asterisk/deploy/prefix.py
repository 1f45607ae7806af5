"""Folders on a device as a person writes them: ``/opt/asterisk`` or ``~/asterisk``."""

from __future__ import annotations

import re

from asterisk.common.errors import UsageError

DEFAULT = "~/.local/share/asterisk"
SERVICE = "/opt/asterisk"
LONGEST = 200
# What the unit's ProtectHome and PrivateTmp keep from the server.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
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


def check_service(text: str) -> None:
    """Refuse a checked prefix in which the unit could never start; UsageError, one line."""
    if not text.startswith("/"):
        raise UsageError("with --service the prefix is an absolute path")
    for folder in HIDDEN:
        if text == folder or text.startswith(f"{folder}/"):
            raise UsageError(f"a service does not see {folder}: name a prefix such as {SERVICE}")


def is_absolute(text: str) -> bool:
    """Tell whether what a device answers is a plain absolute path as `check` takes it."""
    try:
        return check(text).startswith("/")
    except UsageError:
        return False
