"""SHA-256 without OpenSSL: importing `hashlib` costs a small device 3.6 MB for this one function.

CPython's own implementation, which `hashlib` falls back on, is a few times slower: some 40 ms for
an artifact of 16 MB.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


def sha256() -> Any:
    """Return a fresh hash object with ``update`` and ``hexdigest``."""
    return _module().sha256()


@cache
def _module() -> Any:
    for name in ("_sha2", "_sha256"):  # CPython 3.12 and later; 3.11
        try:
            return import_module(name)
        except ImportError:
            continue
    return import_module("hashlib")
