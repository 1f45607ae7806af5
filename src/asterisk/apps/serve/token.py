"""A bearer token from a file that nobody else can read."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from asterisk.common.errors import UsageError

MOST_BYTES = 4096


def read_token(path: Path) -> bytes:
    """Return the token in ``path``, without the white space around it.

    The file must be regular, belong to this user or root, and give others no permission at all. A
    credential of systemd's may be readable by a group: that bit is the mask of the access list
    which lets the service's own user in. Raises UsageError.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        raise UsageError(f"{path}: {failure.strerror}") from None
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{path} is not a plain file")
        if facts.st_uid not in (0, os.geteuid()):
            raise UsageError(f"{path} belongs to another user")
        allowed = 0o740 if facts.st_uid == 0 and _is_credential(path) else 0o700
        if stat.S_IMODE(facts.st_mode) & ~allowed:
            raise UsageError(f"{path} must be private: chmod 600 {path}")
        token = os.read(file, MOST_BYTES + 1)
    finally:
        os.close(file)
    if len(token) > MOST_BYTES:
        raise UsageError(f"{path} has more than {MOST_BYTES} bytes")
    token = token.strip()
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise UsageError(f"{path} must hold one token of printable ASCII")
    return token


def allows(token: bytes | None, authorization: bytes) -> bool:
    """Tell whether a header's value carries ``token``, in a time that tells nothing about it."""
    if token is None:
        return True
    scheme, _, given = authorization.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)


def _is_credential(path: Path) -> bool:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.resolve().parent == Path(folder or "").resolve()
