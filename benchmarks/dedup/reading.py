"""Texts for the benchmark: the last column of a file's lines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from asterisk.common.text_files import lines


def texts(paths: Sequence[Path], seed: int = 0) -> list[str]:
    """Return the last column of every line of ``paths`` (.txt, .tsv, also .zst), shuffled."""
    columns = (line.rpartition("\t")[2].strip() for path in paths for _, line in lines(path))
    found = list(filter(None, columns))
    random.Random(seed).shuffle(found)
    return found
