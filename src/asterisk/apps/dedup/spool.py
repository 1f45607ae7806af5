"""What would not fit in memory, in temporary files that have no name and so cannot be left behind.

A mapped file is only ever read: writing through a map ends the process where the disk is full.
"""

from __future__ import annotations

import json
import mmap
import tempfile
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import OutputError

IN_MEMORY = 64 << 20
"""Bytes of an array up to which it stays in memory."""


class Spool:
    """JSON values, appended and then read by number."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._starts = array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, value: Any) -> None:
        """Add one; OutputError where the disk is full."""
        raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        try:
            self._file.write(raw)
        except OSError as failure:
            raise _full(failure) from failure
        self._starts.append(self._starts[-1] + len(raw))

    def finish(self) -> None:
        """Let what was appended be read."""
        try:
            self._file.flush()
        except OSError as failure:
            raise _full(failure) from failure

    def __getitem__(self, number: int) -> Any:
        start, end = self._starts[number], self._starts[number + 1]
        self._file.seek(start)
        return json.loads(self._file.read(end - start))

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OSError:  # closing writes what is left, and the disk may be full
            self._file.close()


class Rows:
    """An array [n, d] appended in blocks; beyond `IN_MEMORY` bytes in a mapped temporary file."""

    def __init__(self, dtype: npt.DTypeLike, limit: int = IN_MEMORY) -> None:
        self._dtype = np.dtype(dtype)
        self._limit = limit
        self._blocks: list[npt.NDArray[Any]] = []
        self._bytes = 0
        self._file: Any = None
        self._map: mmap.mmap | None = None

    def append(self, block: npt.NDArray[Any]) -> None:
        """Add rows; OutputError where the disk is full."""
        block = np.ascontiguousarray(block, self._dtype)
        self._bytes += block.nbytes
        self._blocks.append(block)
        if self._file is None and self._bytes > self._limit:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        if self._file is not None:
            try:
                while self._blocks:
                    self._file.write(self._blocks.pop(0).data)
            except OSError as failure:
                raise _full(failure) from failure

    def finish(self, columns: int) -> npt.NDArray[Any]:
        """Return all rows, [n, ``columns``], read-only if they are in a file."""
        if self._file is None:
            rows = np.concatenate(self._blocks) if self._blocks else None
            self._blocks = []
            return np.empty((0, columns), self._dtype) if rows is None else rows
        try:
            self._file.flush()
        except OSError as failure:
            raise _full(failure) from failure
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()  # the map keeps what it needs
        return np.frombuffer(self._map, self._dtype).reshape(-1, columns)

    def release(self) -> None:
        """Let go of the pages that reading has brought in; they are read again when needed."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _full(failure: OSError) -> OutputError:
    folder = tempfile.gettempdir()
    return OutputError(f"cannot write a temporary file in {folder}: {failure.strerror or failure}")
