"""Every accepted text once, on disk in the order of reading, with the rows it stands in."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from asterisk.common.digest import DigestSet as Known
from asterisk.training.corpora.clean import Evaluated, digest

HELD_OUT_IN = 100


def held_out(row: tuple[str, ...]) -> bool:
    """Tell whether a row belongs to the fixed slice that is never trained on.

    One row in `HELD_OUT_IN`, by a hash of its last text: the same in every corpus.
    """
    return digest(row[-1]) % HELD_OUT_IN == 0


@dataclass(slots=True)
class Removed:
    """How many rows of a source were kept, and how many not, by reason."""

    kept: int = 0
    short: int = 0
    repeated: int = 0
    evaluated: int = 0


class Spool:
    """A scratch file of texts; its index is in memory, about 80 bytes a text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources = 0
        self._file = path.open("wb")
        self._ends = array("q", [0])
        self._row_texts, self._row_ends = array("q"), array("q", [0])
        self._row_source, self._row_apart = array("H"), array("B")
        self._text_source, self._text_apart = array("H"), array("B")
        self._known = Known()
        self._blob: npt.NDArray[np.uint8] = np.empty(0, "u1")

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._known.clear()
        self._blob = np.empty(0, "u1")
        self.path.unlink(missing_ok=True)

    def fill(self, found: Iterable[tuple[str, ...]], fewest: int, evaluated: Evaluated) -> Removed:
        """Take one source's rows; a row is left out whole."""
        removed = Removed()
        for row in found:
            if not row or any(len(text) < 2 or len(text.split()) < fewest for text in row):
                removed.short += 1
            elif any(text in evaluated for text in row):
                removed.evaluated += 1
            elif self._take(row):
                removed.kept += 1
            else:
                removed.repeated += 1
        self.sources += 1
        return removed

    def _take(self, row: tuple[str, ...]) -> bool:
        apart = held_out(row)
        known = [self._known.get(digest(text)) for text in row]
        # A text that both parts knew would be trained on and then asked about.
        if None not in known or any(
            index is not None and self._text_apart[index] != apart for index in known
        ):
            return False
        for text, index in zip(row, known, strict=True):
            self._row_texts.append(self._add(text, apart) if index is None else index)
        self._row_ends.append(len(self._row_texts))
        self._row_source.append(self.sources)
        self._row_apart.append(apart)
        return True

    def _add(self, text: str, apart: bool) -> int:
        index = self._known.add(digest(text), len(self._text_source))
        if index == len(self._text_source):
            self._ends.append(self._ends[-1] + self._file.write(text.encode("utf-8", "replace")))
            self._text_source.append(self.sources)
            self._text_apart.append(apart)
        return index

    def __contains__(self, text: str) -> bool:
        """Tell whether a text stands in any row, of either part."""
        return self._known.get(digest(text)) is not None

    def seal(self) -> None:
        """End the filling; texts can be read from here on."""
        self._file.close()
        if self._ends[-1]:
            self._blob = np.memmap(self.path, "u1", "r")

    def rows(self, source: int, *, apart: bool) -> npt.NDArray[np.int64]:
        """Return a source's rows of one part, in the order of reading."""
        sources, parts = np.frombuffer(self._row_source, "u2"), np.frombuffer(self._row_apart, "u1")
        return np.flatnonzero((sources == source) & (parts == apart))

    def texts_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return every text of ``rows`` once, in the order of reading."""
        starts, counts, texts = self._columns(rows)
        shifts = np.repeat(starts - (np.cumsum(counts) - counts), counts)
        return np.unique(texts[np.arange(len(shifts)) + shifts])

    def pairs_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first and last text of each row that has two, int64 [m, 2]."""
        starts, counts, texts = self._columns(rows)
        ends = np.stack([texts[starts], texts[starts + counts - 1]], 1)
        found: npt.NDArray[np.int64] = ends[(counts > 1) & (ends[:, 0] != ends[:, 1])]
        return found

    def last_of(self, row: int) -> int:
        """Return the last text of a row."""
        return self._row_texts[self._row_ends[row + 1] - 1]

    def _columns(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        ends = np.frombuffer(self._row_ends, "i8")
        starts = ends[rows]
        return starts, ends[rows + 1] - starts, np.frombuffer(self._row_texts, "i8")

    def source_of(self, text: int) -> int:
        """Return the source that brought a text first."""
        return self._text_source[text]

    def bytes_of(self, text: int) -> bytes:
        """Return a text's UTF-8."""
        return self._blob[self._ends[text] : self._ends[text + 1]].tobytes()

    def texts_a_row(self, source: int) -> float:
        """Return how many texts a row of ``source`` brings on average."""
        rows = np.frombuffer(self._row_source, "u2") == source
        texts = np.frombuffer(self._text_source, "u2") == source
        return float(texts.sum() / max(rows.sum(), 1))

    def mean_bytes(self, rows: npt.NDArray[np.int64]) -> float:
        """Return the mean length of the last texts of ``rows``, in bytes."""
        starts, counts, texts = self._columns(rows)
        last = texts[starts + counts - 1]
        ends = np.frombuffer(self._ends, "i8")
        return float((ends[last + 1] - ends[last]).mean())
