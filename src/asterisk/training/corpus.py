"""Texts to train on, sampled from a folder of compressed files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asterisk.errors import InputError, MissingExtra

HELD_OUT_IN = 100
LONGEST_TEXT = 1_200  # characters; the teacher reads 256 word pieces


def files(folder: Path) -> list[Path]:
    """Return the corpus files of ``folder``: ``*.txt.zst`` and ``*.tsv.zst``."""
    found = sorted([*folder.glob("*.txt.zst"), *folder.glob("*.tsv.zst")])
    if not found:
        raise InputError(f"{folder} holds no .txt.zst or .tsv.zst file")
    return found


def texts(path: Path) -> Iterator[str]:
    """Yield every text of one file: a line, or each column of a line."""
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "train") from None
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as plain:
        for line in io.TextIOWrapper(plain, encoding="utf-8", errors="replace"):
            for text in line.rstrip("\n").split("\t"):
                if len(text) > 1:
                    yield text[:LONGEST_TEXT]


def held_out(text: str) -> bool:
    """Tell whether ``text`` belongs to the fixed slice that is never trained on."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % HELD_OUT_IN == 0


def sample(folder: Path, count: int, *, seed: int, balance: float = 0.75) -> list[str]:
    """Draw ``count`` distinct training texts, shuffled.

    A file of r rows gives a share proportional to r**balance, so that large files do not drown
    small ones.
    """
    return _draw(folder, count, seed, balance, want_held_out=False)


def sample_held_out(folder: Path, count: int, *, seed: int = 0, balance: float = 0.75) -> list[str]:
    """Draw ``count`` distinct texts of the held-out slice, in the same mixture."""
    return _draw(folder, count, seed, balance, want_held_out=True)


def _draw(folder: Path, count: int, seed: int, balance: float, *, want_held_out: bool) -> list[str]:
    pools = [
        [text for text in dict.fromkeys(texts(path)) if held_out(text) == want_held_out]
        for path in files(folder)
    ]
    weights = np.array([len(pool) ** balance for pool in pools])
    shares = np.minimum(
        np.ceil(count * weights / weights.sum()).astype(int), [len(pool) for pool in pools]
    )
    random = np.random.default_rng(seed)
    drawn: dict[str, None] = {}
    for pool, share in zip(pools, shares, strict=True):
        chosen = random.choice(len(pool), size=share, replace=False)
        drawn.update(dict.fromkeys(pool[index] for index in chosen))
    mixed = list(drawn)
    return [mixed[index] for index in random.permutation(len(mixed))[:count]]
