"""The texts in files and standard input, a line or a JSON line each, and vectors written out.

Files are UTF-8, or UTF-16 or UTF-32 with a byte order mark; one named .gz or .zst is decompressed.
A line ends in LF, CR LF or CR.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TextIO

from asterisk.common.errors import InputError, OutputError, UsageError, one_line
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require

if TYPE_CHECKING:
    import numpy.typing as npt

    Vector = npt.NDArray[Any]

LONGEST_LINE = 64 << 20  # bytes
LINE_ENDS = ("\n", "\r")
JSON_LINES = {".jsonl", ".ndjson"}
CHUNK = 512  # compressed bytes at a time; a hostile block may grow thirty thousand times
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# To a lone surrogate, which no bytes decode to.
codecs.register_error("asterisk.surrogate", lambda failure: ("\udcff", failure.end))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Record:
    """A text, its position for messages ("notes.txt, line 3"), and the id in its source, if any."""

    text: str
    position: str
    id: str | int | None = None


def read_records(
    paths: Sequence[Path], *, json_lines: bool | None, field: str, longest: int = LONGEST_LINE
) -> Iterator[Record]:
    """Yield the texts of ``paths`` in order; of standard input for ``-`` or without paths.

    ``json_lines`` None decides by ``.jsonl`` or ``.ndjson`` in the name. A JSON line is a string,
    or an object with the text in ``field`` and perhaps an ``id``; a blank one is an empty text.
    InputError names a line without a text; see also `lines`.
    """
    for path in paths or [Path("-")]:
        as_json = not JSON_LINES.isdisjoint(path.suffixes) if json_lines is None else json_lines
        for position, line in lines(path, longest):
            if not as_json or not line.strip():
                yield Record("" if as_json else line, position)
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{position}: not JSON") from None
            text, id = value, None
            if isinstance(value, dict):
                text, id = value.get(field), value.get("id")
            if not isinstance(text, str):
                kinds = f"neither a string nor an object with a string in {field!r}"
                raise InputError(f"{position}: {kinds}")
            yield Record(text, position, id if isinstance(id, (str, int)) else None)


def filter_empty(records: Iterable[Record], on_empty: str) -> Iterator[Record]:
    """Yield ``records``; empty ones too, unless ``on_empty`` is "skip" or "error" (InputError)."""
    for record in records:
        empty = not record.text.strip()
        if empty and on_empty == "error":
            raise InputError(f"{record.position}: empty text; see --on-empty")
        if not (empty and on_empty == "skip"):
            yield record


def lines(
    path: Path, longest: int = LONGEST_LINE, errors: str = "asterisk.surrogate"
) -> Iterator[tuple[str, str]]:
    """Yield the position of each line, as "notes.txt, line 3", and its text without the line end.

    InputError names the line that has more than ``longest`` bytes or cannot be decoded (unless
    ``errors`` is "replace"), and a file that cannot be read.
    """
    with open_text(path, errors) as file:
        for number, line in numbered_lines(file, longest):
            position = f"{_name(path)}, line {number}"
            text = "" if line is None else line.removesuffix("\n")
            try:
                size = longest + 1 if line is None else len(text.encode())
            except UnicodeEncodeError as failure:
                at = len(failure.object[: failure.start].encode(file.encoding)) + 1
                raise InputError(f"{position}: not {file.encoding.upper()} (byte {at})") from None
            if size > longest:
                limit = f"{longest >> 20} MB" if longest >> 20 else f"{longest >> 10} KB"
                raise InputError(f"{position}: longer than {limit}")
            yield position, text


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def numbered_lines(file: TextIO, longest: int) -> Iterator[tuple[int, str | None]]:
    """Yield each line's number, from 1, and text with line end: None if longer than ``longest``."""
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) <= longest or line.endswith(LINE_ENDS):
            yield number, line
            continue
        yield number, None
        while line and not line.endswith(LINE_ENDS):
            line = file.readline(1 << 20)


@contextmanager
def open_text(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    r"""Open a file, or standard input for ``-``, as text in which every line ends in ``\n``.

    InputError where it cannot be read to its end.
    """
    try:
        with ExitStack() as stack:
            stream: Any = sys.stdin.buffer if str(path) == "-" else open_packed(path, stack)
            if not hasattr(stream, "peek"):
                stream = io.BufferedReader(stream)
            head = stream.peek(4)
            marks = (it for it in BYTE_ORDER_MARKS if head.startswith(it[0]))
            mark, encoding = next(marks, (b"", "utf-8"))
            stream.read(len(mark))
            text = io.TextIOWrapper(stream, encoding, errors)
            stack.callback(text.detach)  # or standard input would be closed
            yield text
    except (EOFError, zlib.error) as failure:
        raise InputError(f"{_name(path)} is damaged: {one_line(failure)}") from None
    except OSError as failure:
        reason = failure.strerror or one_line(failure)
        raise InputError(f"cannot read {_name(path)}: {reason}") from None


def open_packed(path: Path, stack: ExitStack) -> IO[bytes]:
    """Open a file, decompressed by its name's ending, to be closed by ``stack``."""
    raw = stack.enter_context(path.open("rb"))
    if path.suffix not in {".gz", ".zst"}:
        return raw
    return io.BufferedReader(stack.enter_context(decompressed(raw, path.suffix)))


def decompressed(raw: IO[bytes], suffix: str) -> Any:
    """Return a raw reader of what gzip (".gz") or zstd (".zst") has compressed.

    Reading raises OSError, EOFError or zlib.error where that is damaged or cut off.
    """
    if suffix == ".zst":
        return _Zstandard(raw)
    import gzip

    return gzip.GzipFile(fileobj=raw)


class _Zstandard(io.RawIOBase):
    """All frames of a zstd file; the library's own reader takes a cut-off frame for the end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._chunks, self._out = _decompressed_frames(raw), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._out = self._out or memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        return count


def _decompressed_frames(raw: IO[bytes]) -> Iterator[bytes]:
    library: Any = require("zstandard", "train")
    frame: Any = None
    while chunk := raw.read(CHUNK):
        while chunk:
            frame = frame or library.ZstdDecompressor().decompressobj()
            try:
                out = frame.decompress(chunk)
            except library.ZstdError as failure:
                raise OSError(f"damaged: {failure}") from None
            if out:
                yield out
            chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("it ends inside a zstd frame")


@contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open ``path`` so that it appears whole or not at all; None is standard output."""
    if path is None:
        yield sys.stdout.buffer
        return
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: no such folder")
    with replacing_file(path) as staging, staging.open("wb") as file:
        yield file


@contextmanager
def open_vectors(path: Path | None, format: str, like: Vector) -> Iterator[VectorWriter]:
    """Open a writer of "jsonl", "csv" or "npy", for vectors as ``like``, of shape [0, size]."""
    if path is None and format == "npy":
        raise UsageError("npy needs --out FILE: it cannot be written to standard output")
    with open_output(path) as file:
        writer = VectorWriter(file, format, like)
        yield writer
        if format == "npy":  # whose header says how many rows there are
            file.seek(0)
            writer.write_npy_header()
        file.flush()


class VectorWriter:
    """Writes a row for each text, in order, with its vector or None; ``rows`` counts them.

    JSON lines are ``{"index": …, "id": …, "embedding": […]}``, with the shortest digits that read
    back alike, or null. CSV has index, id and the elements, empty without a vector. An .npy is an
    array [n, size], little-endian; in float32 a row without a vector is NaN.
    """

    def __init__(self, file: BinaryIO, format: str, like: Vector) -> None:
        self.file, self.format, self.size, self.rows = file, format, like.shape[1], 0
        self.dtype = like.dtype.newbyteorder("<")
        if format == "npy":
            self.write_npy_header()

    def write_npy_header(self) -> None:
        """Write the header for the present number of rows."""
        from numpy.lib import format as npy

        # NumPy pads its headers so that the first axis may grow in place.
        descr, shape = npy.dtype_to_descr(self.dtype), (self.rows, self.size)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self.file, header)

    def write(self, record: Record, vector: Vector | None) -> None:
        """Write one row."""
        if self.format == "npy":
            import numpy as np

            row = np.full(self.size, np.nan) if vector is None else vector
            data = row.astype(self.dtype).tobytes()
        elif self.format == "csv":
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            if not self.rows:
                writer.writerow(["index", "id", *(f"d{index}" for index in range(self.size))])
            cells = [""] * self.size if vector is None else map(str, vector)
            writer.writerow([self.rows, "" if record.id is None else record.id, *cells])
            data = out.getvalue().encode("utf-8", "replace")
        else:
            id = {} if record.id is None else {"id": record.id}
            start = json.dumps({"index": self.rows, **id})[:-1]
            numbers = "null" if vector is None else f"[{', '.join(map(str, vector))}]"
            data = f'{start}, "embedding": {numbers}}}\n'.encode()
        self.file.write(data)
        self.rows += 1
