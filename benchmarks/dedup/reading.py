"""Texts for the benchmark: the last column of a file's lines."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from asterisk.errors import InputError, MissingExtra


def texts(paths: Sequence[Path], seed: int = 0) -> list[str]:
    """Return the last column of every line of ``paths`` (.txt, .tsv, also .zst), shuffled."""
    found = [text for path in paths for text in _lines(path)]
    random.Random(seed).shuffle(found)
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with _opened(path) as file:
            for line in file:
                text = line.rstrip("\r\n").rsplit("\t", 1)[-1].strip()
                if text:
                    yield text
    except OSError as failure:
        raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    with path.open("rb") as raw:
        if path.suffix != ".zst":
            yield io.TextIOWrapper(raw, "utf-8", newline="\n")
            return
        try:
            import zstandard
        except ImportError:
            raise MissingExtra("zstandard", "train") from None
        with zstandard.ZstdDecompressor().stream_reader(raw) as unpacked:
            yield io.TextIOWrapper(unpacked, "utf-8", newline="\n")
