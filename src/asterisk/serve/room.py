"""Bytes that requests hold together, of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """At most ``most`` bytes; it belongs to the event loop's thread."""

    def __init__(self, most: int) -> None:
        self.held = 0
        self._most = most

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Give one request's share of it, given back in the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.keep(0)

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` bytes more are within it."""
        return self.held + size <= self._most


class Share:
    """What one request holds."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room

    def more(self, size: int) -> bool:
        """Hold ``size`` bytes more, or tell that there is no room."""
        if not self._room.fits(size):
            return False
        self.keep(self.size + size)
        return True

    def alone_or_more(self, size: int) -> bool:
        """Do likewise, but always find room where nobody holds anything."""
        if not self._room.held:
            self.keep(size)
            return True
        return self.more(size)

    def keep(self, size: int) -> None:
        """Hold ``size`` bytes from now on."""
        self._room.held += size - self.size
        self.size = size
