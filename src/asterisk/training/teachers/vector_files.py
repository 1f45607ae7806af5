"""Vectors that somebody made elsewhere, from a file."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import InputError, one_line
from asterisk.training.corpora.clean import digest
from asterisk.training.teachers.blackbox import unit_rows

LONGEST_LINE = 16 << 20  # bytes
Array = npt.NDArray[np.float32]


class Rows:
    """A `.npy` of floats [n, D], one row for each text of a part, in the corpus's order.

    InputError if it is not that; ``texts`` is how many the part has.
    """

    def __init__(self, path: Path, texts: int) -> None:
        self._path = path
        try:
            self._values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as failure:
            raise InputError(f"cannot read {path}: {one_line(failure)}") from None
        if not isinstance(self._values, np.ndarray) or self._values.ndim != 2:
            raise InputError(f"{path} is not one array [texts, dimensions]")
        if self._values.dtype.kind != "f" or not self._values.shape[1]:
            raise InputError(f"{path} holds {self._values.dtype}, not floats")
        if len(self._values) != texts:
            raise InputError(
                f"{path} has {len(self._values):,} rows for {texts:,} texts: embed what "
                "asterisk-data --print-texts prints, in its order"
            )

    @property
    def size(self) -> int:
        """How many dimensions there are."""
        return int(self._values.shape[1])

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on."""
        return {"kind": "npy", "sha256": _digest(self._path)}

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """Return the rows of texts that begin at ``start``, float32 [n, size], L2-normalised."""
        rows = self._values[start : start + len(texts)]
        return unit_rows(rows, f"{self._path}, from row {start}", InputError)


class JsonLines:
    """Lines ``{"text": …, "embedding": […]}`` in any order, found by their text.

    Where each line begins is kept, 16 bytes a text; vectors are read when asked for. Of lines with
    one text the first counts. InputError names the line, or the text, that is wrong or missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        keys, places = array("Q"), array("q")
        whole, number, place = hashlib.sha256(), 0, 0
        self._size = 0
        try:
            with path.open("rb") as file:
                while line := file.readline(LONGEST_LINE + 1):
                    number += 1
                    whole.update(line)
                    if line.strip():
                        text, vector = self._parsed(line, number)
                        self._size = self._size or len(vector)
                        keys.append(digest(text))
                        places.append(place)
                    place += len(line)
        except OSError as failure:
            raise InputError(f"cannot read {path}: {failure.strerror or failure}") from None
        if not keys:
            raise InputError(f"{path} holds no line")
        order = np.argsort(np.frombuffer(keys, "u8"), kind="stable")
        self._keys = np.frombuffer(keys, "u8")[order]
        self._places = np.frombuffer(places, "i8")[order]
        self._sha256 = whole.hexdigest()

    @property
    def size(self) -> int:
        """How many dimensions there are."""
        return self._size

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on."""
        return {"kind": "jsonl", "sha256": self._sha256}

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """Return the vectors of texts, float32 [n, size], L2-normalised."""
        rows = np.empty((len(texts), self._size), "f8")
        with self._path.open("rb") as file:
            for index, text in enumerate(texts):
                rows[index] = self._find(file, text, start + index)
        return unit_rows(rows, f"{self._path}, texts from {start}", InputError)

    def _find(self, file: Any, text: str, number: int) -> list[float]:
        key = np.uint64(digest(text))
        place = int(np.searchsorted(self._keys, key))
        while place < len(self._keys) and self._keys[place] == key:
            file.seek(int(self._places[place]))
            there, vector = self._parsed(file.readline(LONGEST_LINE + 1), None)
            if there == text:
                return vector
            place += 1
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise InputError(f"{self._path} has no vector for text {number}, {shown!r}")

    def _parsed(self, line: bytes, number: int | None) -> tuple[str, list[float]]:
        where = f"{self._path}, line {number}" if number else str(self._path)
        if len(line) > LONGEST_LINE:
            raise InputError(f"{where}: longer than {LONGEST_LINE >> 20} MB")
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: not JSON") from None
        text = told.get("text") if isinstance(told, dict) else None
        vector = told.get("embedding") if isinstance(told, dict) else None
        if not isinstance(text, str) or not is_vector(vector):
            raise InputError(f'{where}: not {{"text": string, "embedding": [numbers]}}')
        if self._size and len(vector) != self._size:
            raise InputError(f"{where}: {len(vector)} dimensions, not {self._size}")
        return text, vector


def is_vector(value: object) -> TypeGuard[list[float]]:
    """Tell whether a JSON value is a list of numbers with something in it."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(number) in (int, float) and abs(number) < 1e30 for number in value)
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
