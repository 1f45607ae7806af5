"""The text files of a training folder: their rows, cleaned, and which of them are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asterisk.common.errors import InputError
from asterisk.common.plugins import require
from asterisk.common.text_files import open_text

LINES = (".txt", ".tsv")
PACKINGS = ("", ".zst", ".gz")
LONGEST_LINE = 1 << 20  # characters; a file from outside may be one endless line
LONGEST = 8_000  # characters; more than 512 tokens of any language hold
HELD_OUT_IN = 100
Row = tuple[str, ...]
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def files(folder: Path, kinds: tuple[str, ...] = LINES) -> list[Path]:
    """Return the corpus files of ``folder``, in order; InputError if there is none."""
    endings = tuple(kind + packing for kind in kinds for packing in PACKINGS)
    found = sorted(path for path in folder.glob("*") if path.name.endswith(endings))
    if not found:
        raise InputError(f"{folder} holds no {' or '.join(kinds)} file, plain, .zst or .gz")
    return found


def name(path: Path) -> str:
    """Return a source's name: the file's, without its endings."""
    return path.name.split(".")[0]


def rows(path: Path) -> Iterator[Row]:
    """Yield each line of a file as its texts: one, or the columns of a .tsv line."""
    columns = ".tsv" in path.suffixes
    with open_text(path, "replace") as stream:
        while line := stream.readline(LONGEST_LINE):
            text = line.removesuffix("\n")
            yield tuple(text.split("\t")) if columns else (text,)


class Cleaner:
    """Mends text by `ftfy`; quotes stay as they were typed, since users type both kinds."""

    def __init__(self) -> None:
        ftfy: Any = require("ftfy", "train")
        self._fix = ftfy.fix_text
        self._config = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)

    def __call__(self, text: str) -> str:
        """Return ``text`` mended, on one line and cut to `LONGEST` characters."""
        text = text[:LONGEST]
        if not text.isascii() or "&" in text:
            text = self._fix(text, self._config)
        return _SPACE.sub(" ", text).strip()


def digest(text: str) -> int:
    """Return 64 bits that tell texts apart."""
    raw = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def held_out(row: Row) -> bool:
    """Tell whether a row is never trained on: one in `HELD_OUT_IN`, by its last text alone."""
    return digest(row[-1]) % HELD_OUT_IN == 0
