"""Vectors to a file or standard output, as JSON lines, CSV or `.npy`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import OutputError, UsageError
from asterisk.common.files import replacing_file
from asterisk.common.streams.reading import Record

Vector = npt.NDArray[Any]


class Sink(ABC):
    """Takes vectors of ``none``'s dtype and size in order; None stands for a text without one.

    ``none`` has shape [0, size].
    """

    def __init__(self, file: BinaryIO, none: Vector) -> None:
        self.file, self.size, self.rows = file, none.shape[1], 0
        self.dtype = none.dtype.newbyteorder("<")

    def write(self, record: Record, vector: Vector | None) -> None:
        """Write one row."""
        self.row(record, vector)
        self.rows += 1

    @abstractmethod
    def row(self, record: Record, vector: Vector | None) -> None:
        """Write one row in this format."""

    def finish(self) -> None:
        """Complete the file."""
        self.file.flush()


class JsonLines(Sink):
    """``{"index": …, "id": …, "embedding": […]}`` a line; shortest digits that read back alike."""

    def row(self, record: Record, vector: Vector | None) -> None:
        """Write an object; its embedding is null where there is no vector."""
        values: dict[str, Any] = {"index": self.rows}
        if record.id is not None:
            values["id"] = record.id
        told = "null" if vector is None else f"[{', '.join(str(value) for value in vector)}]"
        start = json.dumps(values)[:-1]
        self.file.write(f'{start}, "embedding": {told}}}\n'.encode())


class Csv(Sink):
    """A header and a row a text: index, id, then the vector's elements, empty without one."""

    def row(self, record: Record, vector: Vector | None) -> None:
        """Write a row, after the header if it is the first."""
        if not self.rows:
            self._line(["index", "id", *(f"d{index}" for index in range(self.size))])
        cells = [""] * self.size if vector is None else [str(value) for value in vector]
        self._line([str(self.rows), "" if record.id is None else str(record.id), *cells])

    def _line(self, cells: list[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.file.write(line.getvalue().encode("utf-8", "replace"))


class Npy(Sink):
    """An array [n, size], little-endian; in float32 a text without a vector is a row of NaN."""

    def __init__(self, file: BinaryIO, none: Vector) -> None:
        super().__init__(file, none)
        self._header()

    def row(self, record: Record, vector: Vector | None) -> None:  # noqa: ARG002
        """Append a row."""
        values = np.full(self.size, np.nan) if vector is None else vector
        self.file.write(values.astype(self.dtype).tobytes())

    def finish(self) -> None:
        """Put the true number of rows into the header."""
        self.file.seek(0)
        self._header()
        super().finish()

    def _header(self) -> None:
        # NumPy pads its headers so that the first axis may grow in place.
        descr = np.lib.format.dtype_to_descr(self.dtype)
        shape = {"descr": descr, "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self.file, shape)


SINKS: Mapping[str, type[Sink]] = {"jsonl": JsonLines, "csv": Csv, "npy": Npy}


@contextlib.contextmanager
def opened(path: Path | None, format: str, none: Vector) -> Iterator[Sink]:
    """Give a sink of vectors like ``none``; UsageError for `.npy` on standard output."""
    if path is None and format == "npy":
        raise UsageError("npy needs --out FILE: it cannot be written to standard output")
    with written(path) as file:
        sink = SINKS[format](file, none)
        yield sink
        sink.finish()


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[BinaryIO]:
    """Give standard output, or for a path a file that appears whole or not at all."""
    if path is None:
        yield sys.stdout.buffer
        return
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: no such folder")
    with replacing_file(path) as staging, staging.open("wb") as file:
        yield file
