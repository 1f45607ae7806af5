"""Standard output, or a file that appears whole or not at all; vectors as JSON lines, CSV, .npy."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import OutputError, UsageError
from asterisk.common.files import replacing_file
from asterisk.common.text_files import Record

Vector = npt.NDArray[Any]


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open ``path`` so that it appears whole or not at all; None is standard output."""
    if path is None:
        yield sys.stdout.buffer
        return
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: no such folder")
    with replacing_file(path) as staging, staging.open("wb") as file:
        yield file


@contextlib.contextmanager
def open_vectors(path: Path | None, format: str, like: Vector) -> Iterator[VectorWriter]:
    """Open a writer of vectors with the dtype and size of ``like``, shape [0, size].

    ``format`` is "jsonl", "csv" or "npy"; UsageError for "npy" on standard output.
    """
    if path is None and format == "npy":
        raise UsageError("npy needs --out FILE: it cannot be written to standard output")
    with open_output(path) as file:
        writer = VectorWriter(file, format, like)
        yield writer
        writer.finish()


class VectorWriter:
    """Writes a row for each text, in order, with its vector or None; ``rows`` counts them.

    JSON lines are ``{"index": …, "id": …, "embedding": […]}``, with the shortest digits that read
    back alike, or null. CSV has a header, then index, id and the elements, empty without a vector.
    An .npy is an array [n, size], little-endian; in float32 a row without a vector is NaN.
    """

    def __init__(self, file: BinaryIO, format: str, like: Vector) -> None:
        self.file, self.format, self.size, self.rows = file, format, like.shape[1], 0
        self.dtype = like.dtype.newbyteorder("<")
        self._to_bytes = {"jsonl": self._json, "csv": self._csv, "npy": self._npy}[format]
        if format == "npy":
            self._write_npy_header()

    def write(self, record: Record, vector: Vector | None) -> None:
        """Write one row."""
        self.file.write(self._to_bytes(record, vector))
        self.rows += 1

    def finish(self) -> None:
        """Complete the file."""
        if self.format == "npy":  # whose header says how many rows there are
            self.file.seek(0)
            self._write_npy_header()
        self.file.flush()

    def _write_npy_header(self) -> None:
        # NumPy pads its headers so that the first axis may grow in place.
        descr = np.lib.format.dtype_to_descr(self.dtype)
        shape = {"descr": descr, "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self.file, shape)

    def _json(self, record: Record, vector: Vector | None) -> bytes:
        values: dict[str, Any] = {"index": self.rows}
        if record.id is not None:
            values["id"] = record.id
        embedding = "null" if vector is None else f"[{', '.join(map(str, vector))}]"
        return f'{json.dumps(values)[:-1]}, "embedding": {embedding}}}\n'.encode()

    def _csv(self, record: Record, vector: Vector | None) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if not self.rows:
            writer.writerow(["index", "id", *(f"d{index}" for index in range(self.size))])
        cells = [""] * self.size if vector is None else map(str, vector)
        writer.writerow([str(self.rows), "" if record.id is None else str(record.id), *cells])
        return out.getvalue().encode("utf-8", "replace")

    def _npy(self, _: Record, vector: Vector | None) -> bytes:
        values = np.full(self.size, np.nan) if vector is None else vector
        return values.astype(self.dtype).tobytes()
