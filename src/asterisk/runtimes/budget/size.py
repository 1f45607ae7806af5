"""Amounts of memory as people and systemd write them: ``128M``."""

from __future__ import annotations

import argparse
import re

from asterisk.common.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LARGEST = 1 << 50
_SIZE = re.compile(r"([0-9]{1,16})([KMG]?)")


def parse(text: str) -> int:
    """Return the bytes that ``text`` means: a whole number, and perhaps K, M or G.

    1024-based, as systemd's ``MemoryMax``. UsageError for anything else.
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < size <= LARGEST:
        raise UsageError(f"{text[:40]!r} is no amount of memory; write 128M, say, or bytes")
    return size


def told(size: int) -> str:
    """Return ``size`` bytes in M, rounded up: ``parse`` reads back at least as much."""
    return f"{-(-size // UNITS['M'])}M"


def add_option(it: argparse.ArgumentParser) -> None:
    """Add ``--max-memory`` to a command."""
    it.add_argument(
        "--max-memory",
        type=_argument,
        metavar="128M",
        help="stay under this: fewer threads or shorter texts are chosen, or it is refused",
    )


def _argument(text: str) -> int:
    try:
        return parse(text)
    except UsageError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from None
