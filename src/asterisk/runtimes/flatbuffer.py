"""Reading a flatbuffer that nobody has checked: every offset is looked at before it is followed.

Format: FlatBuffers' ``docs/source/internals.md``. Recursion is bounded by the schema, which has no
table that holds itself, and time by `MOST`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

from asterisk.common.errors import ArtifactError

MOST = 100_000  # elements of a vector other than bytes
_LAYOUTS = {name: struct.Struct(f"<{name}") for name in "bBHiIQf"}


class Table:
    """A table at a byte of the file; a field is known by its number in the schema."""

    __slots__ = ("_at", "_data", "_fields", "_size")

    def __init__(self, data: mmap | bytes, at: int) -> None:
        self._data, self._at = data, at
        start = at - number(data, at, "i")
        length = number(data, start, "H")
        self._size = number(data, start + 2, "H")
        if length % 2 or length < 4 or start + length > len(data) or at + self._size > len(data):
            raise ArtifactError("a table that leaves the file")
        self._fields: tuple[int, ...] = struct.unpack_from(f"<{length // 2 - 2}H", data, start + 4)

    def present(self) -> set[int]:
        """Return the fields that are there at all."""
        return {index for index, offset in enumerate(self._fields) if offset}

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        """Return an integer, of a kind in `struct`'s letters."""
        if not (at := self._place(field)):
            return default
        if at - self._at + _LAYOUTS[kind].size > self._size:
            raise ArtifactError("a field that leaves its table")
        return number(self._data, at, kind)

    def table(self, field: int) -> Table | None:
        """Return a table within this one."""
        at = self._follow(field)
        return Table(self._data, at) if at else None

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector of them."""
        start, count = self.vector(field, 4)
        if count > MOST:
            raise ArtifactError(f"a list of {count} where {MOST} is the most")
        for at in range(start, start + 4 * count, 4):
            yield Table(self._data, at + number(self._data, at, "I"))

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Return where a vector of elements of ``size`` bytes begins, and how many it has."""
        if not (at := self._follow(field)):
            return 0, 0
        count = number(self._data, at, "I")
        if at + 4 + count * size > len(self._data):
            raise ArtifactError("a list that leaves the file")
        return at + 4, count

    def numbers(self, field: int, kind: str) -> tuple[int, ...]:
        """Return a vector of numbers, of a kind in `struct`'s letters."""
        start, count = self.vector(field, _LAYOUTS[kind].size)
        if count > MOST:
            raise ArtifactError(f"a list of {count} where {MOST} is the most")
        found: tuple[int, ...] = struct.unpack_from(f"<{count}{kind}", self._data, start)
        return found

    def _place(self, field: int) -> int:
        if field >= len(self._fields) or not (offset := self._fields[field]):
            return 0
        return self._at + offset

    def _follow(self, field: int) -> int:
        if not (at := self._place(field)):
            return 0
        if at - self._at + 4 > self._size:
            raise ArtifactError("a field that leaves its table")
        return at + number(self._data, at, "I")


def number(data: mmap | bytes, at: int, kind: str) -> int:
    """Return the number at byte ``at``; ArtifactError if it leaves the file."""
    layout = _LAYOUTS[kind]
    if not 0 <= at <= len(data) - layout.size:
        raise ArtifactError("an offset that leaves the file")
    (value,) = layout.unpack_from(data, at)
    found: int = value
    return found
