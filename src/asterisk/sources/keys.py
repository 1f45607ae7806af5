"""Keys that are unique within one source, in 24 to 48 bytes each."""

from __future__ import annotations

from asterisk.common.digest import DigestSet as Known


class Keys:
    """Gives each document a key: its own, unless that is empty or was given before."""

    def __init__(self) -> None:
        self._known = Known()

    def unique(self, key: str, number: int) -> str:
        """Return ``key``, or one made of it and a number, for the document of that number."""
        wanted = key or str(number)
        unused = wanted
        # By hash: once in 2^64 a key gets a number that it would not have needed.
        while (digest := hash(unused) & 0xFFFF_FFFF_FFFF_FFFF) in self._known:
            unused = f"{wanted} ({number})"
            number += 1
        self._known.add(digest)
        return unused
