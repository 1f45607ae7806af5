"""GPT-2's printable spelling of bytes: one visible character for each of the 256.

Printable Latin-1 stands for itself, every other byte for the next code point from U+0100. Source:
``bytes_to_unicode`` of OpenAI's GPT-2.
"""

from __future__ import annotations

from itertools import count

_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_fresh = count(0x100)

CHARACTERS = "".join(chr(b if b in _PRINTABLE else next(_fresh)) for b in range(256))
"""The character of each byte, by byte."""

BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}
"""The byte of each character."""


def spell(data: bytes) -> str:
    """Return ``data`` in printable characters, one a byte."""
    return data.decode("latin-1").translate(_SPELLING)


_SPELLING = dict(enumerate(CHARACTERS))
