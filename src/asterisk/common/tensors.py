"""The safetensors format by numpy alone.

::

    8 bytes            the header's length, little-endian
    header             JSON: name -> dtype, shape, data_offsets; "__metadata__" -> strings
    everything else    the tensors' bytes, row-major, little-endian, without gaps

Format: huggingface/safetensors, README. Tensors fill the file exactly; those of float32 are views
of what was read, so that a large model is in memory once.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError
from asterisk.common.files import replacing_file, strict_json

Array = npt.NDArray[np.float32]
Half = npt.NDArray[np.float16]
METADATA = "__metadata__"
LARGEST_HEADER = 4 << 20  # bytes
_KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}  # BF16: half of a float32
_DTYPES: Mapping[str, np.dtype[Any]] = {kind: np.dtype(name) for kind, name in _KINDS.items()}
_INTEGERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes of an element
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Tensors:
    """The contents of a file: ``arrays`` float32, whatever their stored width, and ``metadata``."""

    arrays: Mapping[str, Array]
    metadata: Mapping[str, str]


def read(path: Path, *, largest: int) -> Tensors:
    """Read a file of at most ``largest`` bytes; ArtifactError unless it is valid as a whole.

    Tensors of integers, such as ``position_ids``, are left out.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            raise ArtifactError(f"{path} is not a plain file of at most {largest:,} bytes")
        data = np.fromfile(path, np.uint8, status.st_size)
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise ArtifactError(f"cannot read {path}: {reason}") from None
    if len(data) < status.st_size:
        raise ArtifactError(f"{path} became shorter while it was read")
    try:
        return _parse(data)
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None


def write(path: Path, arrays: Mapping[str, Array | Half], metadata: Mapping[str, str]) -> None:
    """Write ``arrays`` whole or not at all; the same contents give the same bytes.

    float16 stays float16, everything else becomes float32.
    """
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))}
    blocks, end = [], 0
    # Wide ones first, as the format's own writer has them: all are aligned then.
    for name in sorted(arrays, key=lambda name: (arrays[name].dtype == np.float16, name)):
        kind = "F16" if arrays[name].dtype == np.float16 else "F32"
        blocks.append(np.ascontiguousarray(arrays[name], _DTYPES[kind]).tobytes())
        offsets = [end, end := end + len(blocks[-1])]
        shape = list(arrays[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing_file(path) as staging:
        staging.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *blocks]))


def _parse(data: npt.NDArray[np.uint8]) -> Tensors:
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or length > min(LARGEST_HEADER, len(data) - 8):
        raise ArtifactError("not a safetensors file")
    try:
        header = strict_json(data[8 : 8 + length].tobytes())
    except ValueError:
        raise ArtifactError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ArtifactError("its header is not a JSON object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ArtifactError("its metadata are not strings")
    body = data[8 + length :]
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=_span):
        try:
            array = _array(entry, body, end)
        except ArtifactError as failure:
            raise ArtifactError(f"tensor {name[:100]!r} {failure}") from None
        if array is not None:
            arrays[name] = array
        end = entry["data_offsets"][1]
    if end != len(body):
        raise ArtifactError(f"{len(body) - end} bytes belong to no tensor")
    return Tensors(arrays, metadata)


def _span(item: tuple[str, Any]) -> tuple[int, int]:
    """Return where a tensor lies; ArtifactError unless its entry has the format's three fields."""
    name, entry = item
    if isinstance(entry, dict) and set(entry) == _FIELDS:
        offsets = entry["data_offsets"]
        if isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_count, offsets)):
            return offsets[0], offsets[1]
    raise ArtifactError(f"tensor {name[:100]!r} is malformed")


def _array(entry: dict[str, Any], body: npt.NDArray[np.uint8], begin: int) -> Array | None:
    """Return a tensor of floats as float32, None for one of integers."""
    kind = entry["dtype"] if isinstance(entry["dtype"], str) else ""
    dtype = _DTYPES.get(kind)
    width = dtype.itemsize if dtype is not None else _INTEGERS.get(kind)
    if width is None:
        raise ArtifactError(f"is of type {kind[:20]!r}, none of {', '.join(_DTYPES)}")
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_count, shape)):
        raise ArtifactError("has no shape")
    if start != begin or end > len(body) or end - start != math.prod(shape) * width:
        raise ArtifactError("does not lie where it should")
    if dtype is None:
        return None
    stored = np.frombuffer(body[start:end], dtype)
    if kind == "BF16":
        stored = (stored.astype("<u4") << np.uint32(16)).view("<f4")
    with np.errstate(over="ignore"):  # too large for float32 is found below
        array: Array = stored.astype(np.float32, copy=not stored.flags.aligned)
    if not np.isfinite(array).all():
        raise ArtifactError("holds values that are not finite")
    return array.reshape(shape)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40
