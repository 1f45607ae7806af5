"""SimHash (Charikar, 2002; Manku, Jain and Das Sarma, 2007), as the usual library computes it.

64 bits a text: each feature votes with its hash (the low 64 bits of its MD5) for or against every
bit. Features are windows of four characters over the text's letters and digits, as in the PyPI
package `simhash`, or three words in a row.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

BITS = 64
WIDTH = 4
NEAR = 3  # differing bits, the paper's choice for 64
BLOCK = 2_048

Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def letters(text: str) -> list[str]:
    """Return the windows of four characters, lower case, nothing but letters and digits."""
    joined = "".join(re.findall(r"[\w\u4e00-\u9fcc]+", text.lower()))
    return [joined[start : start + WIDTH] for start in range(max(len(joined) - WIDTH + 1, 1))]


def words(text: str) -> list[str]:
    """Return the windows of three words, lower case."""
    every = re.findall(r"\w+", text.lower())
    return [" ".join(every[start : start + 3]) for start in range(max(len(every) - 2, 1))]


FEATURES = {"letters": letters, "words": words}


def simhash(features: Iterable[str]) -> int:
    """Return the 64-bit hash of a text's features, each weighted by how often it occurs."""
    weights = Counter(features)
    raw = b"".join(
        hashlib.md5(feature.encode(), usedforsecurity=False).digest()[-8:] for feature in weights
    )
    bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, 8), axis=1)
    counts = np.fromiter(weights.values(), np.int64, len(weights))
    votes = counts @ bits
    return int.from_bytes(np.packbits(votes * 2 > counts.sum()).tobytes(), "big")


def hashes(texts: Iterable[str], kind: str) -> Hashes:
    """Return the hash of each text, uint64 [n]."""
    features = FEATURES[kind]
    return np.array([simhash(features(text)) for text in texts], np.uint64)


def within(found: Hashes, bits: int) -> tuple[Places, Places, npt.NDArray[np.int64]]:
    """Return all pairs i < j that differ in at most ``bits`` bits, and in how many."""
    parts: list[Sequence[npt.NDArray[np.int64]]] = []
    for top in range(0, len(found), BLOCK):
        for left in range(top, len(found), BLOCK):
            differ = np.bitwise_count(
                found[top : top + BLOCK, None] ^ found[None, left : left + BLOCK]
            )
            i, j = np.nonzero(differ <= bits)
            within = i + top < j + left
            i, j = i[within], j[within]
            parts.append((i + top, j + left, differ[i, j].astype(np.int64)))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    first, second, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, second, distance
