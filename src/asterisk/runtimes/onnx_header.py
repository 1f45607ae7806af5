"""Look through an ONNX graph for where its weights would be read from, before an engine does.

A tensor may name any file as the place of its data. Those of the graph's own initializers are read
here field by field (protocol buffers' wire format; ``onnx.proto``); the word that begins such an
entry may then stand nowhere else in the file, so that no other tensor can have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asterisk.errors import ArtifactError

LARGEST_GRAPH = 16 << 20  # bytes; weights do not belong into it
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER, _EXTERNAL_DATA = 7, 5, 13  # of ModelProto, GraphProto, TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_LOCATION = b"location"


def check_graph(path: Path, weights: str) -> None:
    """Raise ArtifactError if ``path`` is no graph or refers to a file other than ``weights``."""
    if path.stat().st_size > LARGEST_GRAPH:
        raise ArtifactError(f"{path} is too large: weights belong into a file of their own")
    model = path.read_bytes()
    expected = [(_KEY, _LOCATION), (_VALUE, weights.encode())]
    found = 0
    try:
        for graph in _inside(model, _GRAPH):
            for tensor in _inside(graph, _INITIALIZER):
                for entry in _inside(tensor, _EXTERNAL_DATA):
                    if _LOCATION in entry:
                        found += 1
                        if list(_fields(entry)) != expected:
                            raise ArtifactError(f"{path} refers to data outside its artifact")
    except (IndexError, ValueError):
        raise ArtifactError(f"{path} is not an ONNX file") from None
    if model.count(_LOCATION) != found:
        raise ArtifactError(f"{path} refers to data outside its artifact")


def _inside(message: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _fields(message) if found == number)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each field's number and bytes; ValueError or IndexError for what is no message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, end = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            end = at + size
        elif kind in (_FIXED64, _FIXED32):
            end = at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(kind)
        if end > len(message):
            raise ValueError(end)
        yield tag >> 3, message[at:end]
        at = end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(shift)
