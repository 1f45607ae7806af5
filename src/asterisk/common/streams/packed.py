"""Compressed files as streams that notice when the file ends too early."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from asterisk.common.plugins import require

CHUNK = 512  # compressed bytes at a time; a hostile block may grow thirty thousand times


def open_packed(path: Path, stack: ExitStack) -> IO[bytes]:
    """Open a file, decompressed by its name's ending, to be closed by ``stack``.

    Reading raises OSError or EOFError where a compressed file is damaged or cut off.
    """
    raw = stack.enter_context(path.open("rb"))
    if path.suffix == ".gz":
        import gzip

        return io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=raw)))
    if path.suffix == ".zst":
        return io.BufferedReader(stack.enter_context(_Zstandard(raw)))
    return raw


class _Zstandard(io.RawIOBase):
    """All frames of a zstd file; the library's own reader takes a cut-off frame for the end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._library: Any = require("zstandard", "train")
        self._raw = raw
        self._frame: Any = None
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            chunk = self._raw.read(CHUNK)
            if not chunk:
                if self._frame is not None:
                    raise EOFError("it ends inside a zstd frame")
                return 0
            self._out = memoryview(self._decompressed(chunk))
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        return count

    def _decompressed(self, chunk: bytes) -> bytes:
        parts = []
        while chunk:
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                parts.append(self._frame.decompress(chunk))
            except self._library.ZstdError as failure:
                raise OSError(f"damaged: {failure}") from None
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        return b"".join(parts)
