"""Look through a GGUF file's header before a native engine does.

llama.cpp trusts a header further than a file from elsewhere deserves. Here every length is checked
against the file, every key against those that `asterisk.exporters.gguf` writes, and the model's
shape against the manifest. Layout: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from asterisk.errors import ArtifactError
from asterisk.model.config import ModelConfig

_COUNT = struct.Struct("<Q")
_KIND = struct.Struct("<I")
_STRING, _ARRAY = 8, 9
_SCALARS = dict(enumerate(map(struct.Struct, ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))))
_SCALARS |= {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_LARGEST = 1 << 32  # of any count: products of two still mean something
_MOST = 4_096  # keys or tensors; a string that is shown or compared
_ALIGNMENT = 32
_F32, _Q8_0 = 0, 8
_BLOCKS = {_F32: (1, 4), _Q8_0: (32, 34)}  # tensor kind: elements and bytes of a block
_ALWAYS_F32 = {"position_embd.weight", "token_types.weight"}
_TOKENIZER = {
    *("model", "pre", "tokens", "token_type", "merges", "token_type_count"),
    *(f"{name}_token_id" for name in ("bos", "eos", "padding", "mask")),
    *("add_bos_token", "add_eos_token"),
}
_KEYS = {
    *(f"general.{name}" for name in ("name", "file_type", "quantization_version")),
    *(f"tokenizer.ggml.{name}" for name in _TOKENIZER),
}


def check_header(path: Path, config: ModelConfig) -> None:
    """Raise ArtifactError unless ``path`` holds the whole of a model of this shape."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            _check(_Reader(data), config)
    except (OSError, ValueError, struct.error) as failure:
        # struct.error: a read beyond the end; ValueError: an empty file
        raise ArtifactError(f"{path} is truncated or altered: {failure}") from None
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None


class _Reader:
    """Reads forward through mapped bytes; struct.error at their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def count(self, most: int = _LARGEST) -> int:
        value: int = self.scalar(_COUNT)
        if value > most:
            raise ArtifactError(f"a count of {value} where {most} is the most")
        return value

    def string(self) -> str:
        length = self.count(_MOST)
        self.at += length
        text = self.data[self.at - length : self.at]
        if len(text) < length:
            raise ArtifactError("the file ends within a string")
        return text.decode()

    def value(self) -> Any:
        """Return a scalar or string, or how many elements an array has."""
        kind = self.scalar(_KIND)
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._skip_array()
        return self.scalar(self._layout(kind))

    def _skip_array(self) -> int:
        kind, count = self.scalar(_KIND), self.count()
        if kind != _STRING:
            self.at += count * self._layout(kind).size
            return count
        at, data, length = self.at, self.data, _COUNT.unpack_from
        for _ in range(count):
            at += 8 + length(data, at)[0]
        self.at = at
        return count

    def _layout(self, kind: int) -> struct.Struct:
        if kind not in _SCALARS:
            raise ArtifactError(f"values of kind {kind}")
        return _SCALARS[kind]


def _check(reader: _Reader, config: ModelConfig) -> None:
    if reader.data[:8] != b"GGUF\x03\0\0\0":
        raise ArtifactError("not a GGUF file of version 3")
    reader.at = 8
    tensors, keys = reader.count(_MOST), reader.count(_MOST)
    expected = _expected(config)
    found: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        if key in found or key not in _KEYS | set(expected):
            raise ArtifactError(f"a key that does not belong: {key!r}")
        found[key] = reader.value()
    for key, value in expected.items():
        if found.get(key) != value:
            raise ArtifactError(f"{key} is {found.get(key)!r}, the manifest says {value!r}")
    ends = [_tensor(reader) for _ in range(tensors)]
    start = -(-reader.at // _ALIGNMENT) * _ALIGNMENT
    if start + max(ends, default=0) > len(reader.data):
        raise ArtifactError("the file ends before its tensors do")


def _expected(config: ModelConfig) -> dict[str, Any]:
    (epsilon,) = struct.unpack("<f", struct.pack("<f", config.layer_norm_eps))
    return {
        "general.architecture": "bert",
        "bert.context_length": config.max_positions,
        "bert.embedding_length": config.hidden_size,
        "bert.block_count": config.num_layers,
        "bert.feed_forward_length": config.intermediate_size,
        "bert.attention.head_count": config.num_heads,
        "bert.attention.layer_norm_epsilon": epsilon,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.tokens": config.vocab_size,
    }


def _tensor(reader: _Reader) -> int:
    """Read one tensor's description and return where its bytes end, counted from the first's."""
    name = reader.string()
    sizes = [reader.count() for _ in range(reader.scalar(_KIND) & 7)]
    kind, offset = reader.scalar(_KIND), reader.count()
    if not 1 <= len(sizes) <= 2 or kind not in _BLOCKS:
        raise ArtifactError(f"tensor {name!r} is neither float32 nor Q8_0")
    if kind != _F32 and (len(sizes) == 1 or name in _ALWAYS_F32):
        raise ArtifactError(f"tensor {name!r} is not float32")
    elements, size = _BLOCKS[kind]
    if sizes[0] % elements or offset % _ALIGNMENT:
        raise ArtifactError(f"tensor {name!r} is misaligned")
    rows = sizes[1] if len(sizes) > 1 else 1
    return offset + sizes[0] // elements * size * rows
