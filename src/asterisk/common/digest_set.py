"""Which texts are known: a hash table of 64-bit digests in two flat arrays.

A dict of Python integers takes some 150 bytes a text; this takes 24 to 48.
"""

from __future__ import annotations

from array import array

SMALLEST = 1 << 10


class Known:
    """A number for each digest, by open addressing; at most half full."""

    def __init__(self) -> None:
        self._count = 0
        self._make(SMALLEST)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._numbers[self._place(digest)] != 0

    def get(self, digest: int) -> int | None:
        """Return the digest's number, None if it is new."""
        number = self._numbers[self._place(digest)]
        return number - 1 if number else None

    def add(self, digest: int, number: int = 0) -> int:
        """Give a digest a number unless it has one; return the one it has."""
        place = self._place(digest)
        if known := self._numbers[place]:
            return known - 1
        self._keys[place], self._numbers[place] = digest, number + 1
        self._count += 1
        if 2 * self._count > len(self._keys):
            self._grow()
        return number

    def clear(self) -> None:
        """Forget everything."""
        self._count = 0
        self._make(SMALLEST)

    def _make(self, size: int) -> None:
        self._mask = size - 1
        self._keys = array("Q", bytes(8 * size))
        self._numbers = array("Q", bytes(8 * size))

    def _place(self, digest: int) -> int:
        """Return where the digest stands, or would."""
        place = digest & self._mask
        while self._numbers[place] and self._keys[place] != digest:
            place = (place + 1) & self._mask
        return place

    def _grow(self) -> None:
        keys, numbers = self._keys, self._numbers
        self._make(2 * len(keys))
        for key, number in zip(keys, numbers, strict=True):
            if number:
                place = self._place(key)
                self._keys[place], self._numbers[place] = key, number
