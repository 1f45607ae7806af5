"""SHA-256 without OpenSSL, and a set of digests in little memory."""

from __future__ import annotations

import contextlib
from array import array
from importlib import import_module
from typing import Any

_SMALLEST = 1 << 10


def sha256() -> Any:
    """Return a new hash object with ``update`` and ``hexdigest``."""
    # Importing `hashlib` costs a small device 3.6 MB. CPython's own implementation, on which that
    # falls back, is a few times slower: some 40 ms for an artifact of 16 MB.
    for name in ("_sha2", "_sha256"):  # CPython 3.12 and later; 3.11
        with contextlib.suppress(ImportError):
            return import_module(name).sha256()
    return import_module("hashlib").sha256()


class DigestSet:
    """64-bit digests, each with a number, in 24 to 48 bytes; a dict of integers takes some 150."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._numbers[self._slot(digest)] != 0

    def get(self, digest: int) -> int | None:
        """Return the digest's number, None if it is new."""
        number = self._numbers[self._slot(digest)]
        return number - 1 if number else None

    def add(self, digest: int, number: int = 0) -> int:
        """Give a digest a number unless it has one; return the one it has."""
        slot = self._slot(digest)
        if present := self._numbers[slot]:
            return present - 1
        self._keys[slot], self._numbers[slot] = digest, number + 1
        self._count += 1
        if 2 * self._count > len(self._keys):
            entries = zip(self._keys, self._numbers, strict=True)
            self._allocate(2 * len(self._keys))
            for key, value in entries:
                if value:
                    slot = self._slot(key)
                    self._keys[slot], self._numbers[slot] = key, value
        return number

    def clear(self) -> None:
        """Remove all digests."""
        self._count = 0
        self._allocate(_SMALLEST)

    def _allocate(self, size: int) -> None:
        self._mask = size - 1  # of a hash table in two flat arrays, at most half full
        self._keys = array("Q", bytes(8 * size))
        self._numbers = array("Q", bytes(8 * size))

    def _slot(self, digest: int) -> int:
        """Return the index of the digest, or the free one where it belongs."""
        slot = digest & self._mask
        while self._numbers[slot] and self._keys[slot] != digest:
            slot = (slot + 1) & self._mask
        return slot
