"""A character map as SentencePiece writes it: a double-array trie and the texts it leads to."""

from __future__ import annotations

import base64
import struct


def charsmap(replacements: dict[str, str]) -> str:
    """Return the map in base64, as ``tokenizer.json`` has it (darts-clone's units)."""
    texts, starts = b"", {}
    for text in replacements.values():
        starts[text] = len(texts)
        texts += text.encode() + b"\0"
    trie: dict = {}
    for key, text in replacements.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[None] = starts[text]
    units = {0: 0}
    queue = [(0, trie)]
    while queue:
        at, node = queue.pop()
        base = 256  # children of different nodes never meet, and no child has number 0
        while any(base ^ (byte or 0) in units for byte in node):
            base += 256
        units[at] |= (at ^ base) << 10 | (None in node) << 8
        for byte, child in node.items():
            units[base ^ (byte or 0)] = 1 << 31 | child if byte is None else byte
            if byte is not None:
                queue.append((base ^ byte, child))
    size = (max(units) | 255) + 1
    array = struct.pack(f"<{size}I", *(units.get(i, 0) for i in range(size)))
    return base64.b64encode(struct.pack("<I", len(array)) + array + texts).decode()
