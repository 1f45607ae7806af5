"""What becomes of raw rows: one form for every text, no duplicates, nothing of evaluation sets."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from asterisk.common.corpus import digest, held_out
from asterisk.common.digest import DigestSet

RUN = 16  # words in a row that no training text shares with an evaluation text
STRIDE = 4
_WORD = re.compile(r"\w+")
Indices = npt.NDArray[np.int64]


class Evaluated:
    """The texts of evaluation sets, and all that share a run of `RUN` words with one of them."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts, self._runs = DigestSet(), DigestSet()
        for text in texts:
            # Every window on one side lets the other side be looked up with a stride.
            full, *windows = _digests(text, 1)
            self._texts.add(full)
            for window in windows:
                self._runs.add(window)

    def __contains__(self, text: str) -> bool:
        digests = _digests(text, STRIDE)
        return next(digests) in self._texts or any(window in self._runs for window in digests)


def _digests(text: str, stride: int) -> Iterator[int]:
    """Yield the digest of a text's words, then of its windows of words."""
    words = _WORD.findall(text.casefold())
    yield digest(" ".join(words))
    width = RUN - STRIDE + 1
    for start in range(0, len(words) - width + 1, stride):
        yield digest(" ".join(words[start : start + width]))


@dataclass(slots=True)
class RowCounts:
    """How many rows of a source were kept, and how many removed, by reason."""

    kept: int = 0
    short: int = 0
    repeated: int = 0
    evaluated: int = 0


class Spool:
    """Every accepted text once, in a scratch file, and its rows; indexed in 80 bytes a text."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self.sources = 0
        self._ends = array("q", [0])
        self._row_texts, self._row_ends = array("q"), array("q", [0])
        self._row_source, self._row_held_out = array("H"), array("B")
        self.text_source, self._text_held_out = array("H"), array("B")  # of its first row
        self._index = DigestSet()
        self._blob = np.empty(0, "u1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._index.clear()
        self._blob = np.empty(0, "u1")
        self._path.unlink(missing_ok=True)

    def fill(self, rows: Iterable[tuple[str, ...]], fewest: int, evaluated: Evaluated) -> RowCounts:
        """Take one source's rows; a row is left out whole."""
        counts = RowCounts()
        for row in rows:
            found = [self._index.get(digest(text)) for text in row]
            # A text in both parts would be trained on and then asked about.
            parts = {self._text_held_out[index] for index in found if index is not None}
            if not row or any(len(text) < 2 or len(text.split()) < fewest for text in row):
                counts.short += 1
            elif any(text in evaluated for text in row):
                counts.evaluated += 1
            elif None not in found or not parts <= {held_out(row)}:
                counts.repeated += 1
            else:
                counts.kept += 1
                self._add(row, held_out(row))
        self.sources += 1
        return counts

    def _add(self, row: tuple[str, ...], apart: bool) -> None:
        for text in row:
            index = self._index.add(digest(text), len(self.text_source))
            if index == len(self.text_source):
                size = self._file.write(text.encode("utf-8", "replace"))
                self._ends.append(self._ends[-1] + size)
                self.text_source.append(self.sources)
                self._text_held_out.append(apart)
            self._row_texts.append(index)
        self._row_ends.append(len(self._row_texts))
        self._row_source.append(self.sources)
        self._row_held_out.append(apart)

    def __contains__(self, text: str) -> bool:
        return digest(text) in self._index

    def seal(self) -> None:
        """End the filling; texts can be read from now on."""
        self._file.close()
        if self._ends[-1]:
            self._blob = np.memmap(self._path, "u1", "r")
        self._texts = np.frombuffer(self._row_texts, "i8")
        ends = np.frombuffer(self._row_ends, "i8")
        self._starts, self._counts = ends[:-1], np.diff(ends)

    def rows(self, source: int, *, held_out: bool) -> Indices:
        """Return a source's rows of one part, in the order of reading."""
        sources = np.frombuffer(self._row_source, "u2")
        parts = np.frombuffer(self._row_held_out, "u1")
        return np.flatnonzero((sources == source) & (parts == held_out))

    def texts_of(self, rows: Indices) -> Indices:
        """Return every text of ``rows`` once, in the order of reading."""
        starts, counts = self._starts[rows], self._counts[rows]
        shifts = np.repeat(starts - (np.cumsum(counts) - counts), counts)
        return np.unique(self._texts[np.arange(len(shifts)) + shifts])

    def last_of(self, rows: Indices) -> Indices:
        """Return the last text of each row."""
        last: Indices = self._texts[self._starts[rows] + self._counts[rows] - 1]
        return last

    def pairs_of(self, rows: Indices) -> Indices:
        """Return the first and last text of each row that has two, int64 [m, 2]."""
        ends = np.stack([self._texts[self._starts[rows]], self.last_of(rows)], 1)
        pairs: Indices = ends[(self._counts[rows] > 1) & (ends[:, 0] != ends[:, 1])]
        return pairs

    def bytes_of(self, text: int) -> bytes:
        """Return a text's UTF-8."""
        return self._blob[self._ends[text] : self._ends[text + 1]].tobytes()

    def texts_a_row(self, source: int) -> float:
        """Return how many texts a row of ``source`` brings on average."""
        rows = np.frombuffer(self._row_source, "u2") == source
        texts = np.frombuffer(self.text_source, "u2") == source
        return float(texts.sum() / max(rows.sum(), 1))

    def mean_bytes(self, rows: Indices) -> float:
        """Return the mean length of the last texts of ``rows``, in bytes."""
        ends, last = np.frombuffer(self._ends, "i8"), self.last_of(rows)
        return float((ends[last + 1] - ends[last]).mean())
