"""Standard output, or a file that appears whole or not at all; vectors as JSON lines, CSV, .npy."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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
        kinds: dict[str, Callable[[BinaryIO, Vector], VectorWriter]]
        kinds = {"jsonl": _JsonLines, "csv": _Csv, "npy": _Npy}
        writer = kinds[format](file, like)
        yield writer
        writer.finish()


class VectorWriter(ABC):
    """Writes a row for each text, in order, with its vector or None; ``rows`` counts them."""

    def __init__(self, file: BinaryIO, like: Vector) -> None:
        self.file, self.size, self.rows = file, like.shape[1], 0
        self.dtype = like.dtype.newbyteorder("<")

    def write(self, record: Record, vector: Vector | None) -> None:
        """Write one row."""
        self.file.write(self._row(record, vector))
        self.rows += 1

    @abstractmethod
    def _row(self, record: Record, vector: Vector | None) -> bytes: ...

    def finish(self) -> None:
        """Complete the file."""
        self.file.flush()


class _JsonLines(VectorWriter):
    """``{"index": …, "id": …, "embedding": […]}`` a line; shortest digits that read back alike."""

    def _row(self, record: Record, vector: Vector | None) -> bytes:
        values: dict[str, Any] = {"index": self.rows}
        if record.id is not None:
            values["id"] = record.id
        embedding = "null" if vector is None else f"[{', '.join(str(value) for value in vector)}]"
        return f'{json.dumps(values)[:-1]}, "embedding": {embedding}}}\n'.encode()


class _Csv(VectorWriter):
    """A header and a row a text: index, id, then the vector's elements, empty without one."""

    def _row(self, record: Record, vector: Vector | None) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if not self.rows:
            writer.writerow(["index", "id", *(f"d{index}" for index in range(self.size))])
        cells = [""] * self.size if vector is None else [str(value) for value in vector]
        writer.writerow([str(self.rows), "" if record.id is None else str(record.id), *cells])
        return out.getvalue().encode("utf-8", "replace")


class _Npy(VectorWriter):
    """An array [n, size], little-endian; in float32 a text without a vector is a row of NaN."""

    def __init__(self, file: BinaryIO, like: Vector) -> None:
        super().__init__(file, like)
        self._write_header()

    def _row(self, record: Record, vector: Vector | None) -> bytes:  # noqa: ARG002
        values = np.full(self.size, np.nan) if vector is None else vector
        return values.astype(self.dtype).tobytes()

    def finish(self) -> None:
        # NumPy pads its headers so that the first axis may grow in place.
        self.file.seek(0)
        self._write_header()
        super().finish()

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self.dtype)
        shape = {"descr": descr, "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(self.file, shape)
