"""Values on a command line that several commands read alike."""

from __future__ import annotations

import argparse
import re


def natural(text: str) -> int:
    """Read a number from 0 to 999999999."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 to 999999999")
    return int(text)


def fraction(text: str) -> float:
    """Read a number from 0 to 1."""
    if not re.fullmatch(r"[01]|[01]?\.[0-9]{1,9}", text) or float(text) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 to 1")
    return float(text)


def words(text: str) -> tuple[str, ...]:
    """Read names with commas between."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between")
    return names
