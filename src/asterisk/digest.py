"""SHA-256 without OpenSSL: importing `hashlib` costs a small device 3.6 MB for this one function.

CPython's own implementation is the fallback that `hashlib` itself uses; it is a few times slower,
some 40 ms for an artifact of 16 MB.
"""

from __future__ import annotations

from typing import Any

_sha256: Any
try:
    from _sha2 import sha256 as _sha256  # CPython 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # CPython 3.11
    except ImportError:
        from hashlib import sha256 as _sha256


def sha256() -> Any:
    """Return a fresh hash object with ``update`` and ``hexdigest``."""
    return _sha256()
