"""Addresses as a person writes them: ``ssh://user@host:port``.

Names of users and hosts are so narrow that none can become an option of ssh or a word of a shell.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from asterisk.common.errors import UsageError

SCHEME = "ssh://"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,5}")
_ADDRESS = re.compile(r"(?:([^@]*)@)?(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the system's ssh finds a machine; port 0 is the one its configuration names."""

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{SCHEME}{user}{host}{port}"


def parse(text: str) -> Address:
    """Read one address; UsageError, in one line, for anything else."""
    if not text.startswith(SCHEME):
        raise UsageError(f"{text!r} is no address: ssh://user@host or ssh://user@host:port")
    return after_scheme(text, text.removeprefix(SCHEME))


def after_scheme(text: str, address: str) -> Address:
    """Read ``address``, the part of ``text`` that follows ``ssh://``; UsageError."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UsageError(f"{text!r} is no address: ssh://user@host or ssh://user@host:port")
    user, host, port = parts.groups()
    if user is not None and not _USER.fullmatch(user):
        raise UsageError(f"{user!r} in {text!r} is no user's name")
    if port is not None and not (_NUMBER.fullmatch(port) and 1 <= int(port) < 1 << 16):
        raise UsageError(f"{port!r} in {text!r} is no port")
    return Address(_host(text, host), user or "", int(port or 0))


def _host(text: str, host: str) -> str:
    if host.startswith("["):
        number, zoned, zone = host[1:-1].partition("%")
        if zoned and not _ZONE.fullmatch(zone):
            raise UsageError(f"{zone!r} in {text!r} is no zone of an IPv6 address")
        try:
            return f"{ipaddress.IPv6Address(number)}{zoned}{zone}"
        except ValueError:
            raise UsageError(f"{host!r} in {text!r} is no IPv6 address") from None
    if not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} in {text!r} is no host's name")
    return host
