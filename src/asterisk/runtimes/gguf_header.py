"""A check of a GGUF file's header before an engine reads it.

llama.cpp trusts a header further than a file from elsewhere deserves. Here every length is checked
against the file, every key against those that `asterisk.exporters.gguf` writes, and the model's
shape against the manifest. Layout: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.model.config import LIMITS, LlamaShape, ModelConfig, llama_shape

_COUNT = struct.Struct("<Q")
_KIND = struct.Struct("<I")
_STRING, _ARRAY = 8, 9
_SCALARS = dict(enumerate(map(struct.Struct, ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))))
_SCALARS |= {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_LARGEST = 1 << 32  # of any count: products of two still mean something
_MOST = 4_096  # keys or tensors; bytes of a string
_MOST_ELEMENTS = LIMITS["vocab_size"]  # of an array: tokens, their types, scores, merges
_ALIGNMENT = 32
_F32 = 0
# Tensor kind: elements and bytes of a block. F32, F16, Q8_0, Q4_K, Q6_K.
_BLOCKS = {_F32: (1, 4), 1: (1, 2), 8: (32, 34), 12: (256, 144), 14: (256, 210)}
_ALWAYS_F32 = {"position_embd.weight", "token_types.weight"}
_TOKENIZER = {
    *("model", "pre", "tokens", "token_type", "scores", "merges", "token_type_count"),
    *(f"{name}_token_id" for name in ("bos", "eos", "unknown", "seperator", "padding", "cls")),
    *("mask_token_id", "add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix"),
    *("remove_extra_whitespaces", "precompiled_charsmap"),
    *("normalizer.lowercase", "normalizer.strip_accents"),
}
_KEYS = {
    *(f"general.{name}" for name in ("name", "file_type", "quantization_version")),
    *(f"tokenizer.ggml.{name}" for name in _TOKENIZER),
}


def check_header(path: Path, config: ModelConfig) -> LlamaShape:
    """Return the model's shape; ArtifactError unless ``path`` holds the whole of such a model."""
    shape = llama_shape(config)
    if shape is None:
        raise ArtifactError(f"{path}: llama.cpp has no architecture of the manifest's shape")
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            _check(_Reader(data), _expected(shape, config))
    except (OSError, ValueError, struct.error) as failure:
        # struct.error: a read beyond the end; ValueError: an empty file
        raise ArtifactError(f"{path} is truncated or altered: {failure}") from None
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None
    return shape


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
        if kind != _ARRAY:
            return self.scalar(self._layout(kind))
        kind, count = self.scalar(_KIND), self.count(_MOST_ELEMENTS)
        if kind != _STRING:
            self.at += count * self._layout(kind).size
            return count
        at, data, length = self.at, self.data, _COUNT.unpack_from
        for _ in range(count):
            size = length(data, at)[0]
            if size > _MOST:
                raise ArtifactError(f"a string of {size} bytes where {_MOST} are the most")
            at += 8 + size
        self.at = at
        return count

    @staticmethod
    def _layout(kind: int) -> struct.Struct:
        if kind not in _SCALARS:
            raise ArtifactError(f"values of kind {kind}")
        return _SCALARS[kind]


def _check(reader: _Reader, expected: dict[str, Any]) -> None:
    if reader.data[:8] != b"GGUF\x03\0\0\0":
        raise ArtifactError("not a GGUF file of version 3")
    reader.at = 8
    tensors, keys = reader.count(_MOST), reader.count(_MOST)
    found: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        if key in found or key not in _KEYS | set(expected):
            raise ArtifactError(f"a key that does not belong: {key!r}")
        found[key] = reader.value()
    for key, value in expected.items():
        if found.get(key) != value:
            raise ArtifactError(f"{key} is {found.get(key)!r}, the manifest says {value!r}")
    spans = sorted(_tensor(reader) for _ in range(tensors))
    start = -(-reader.at // _ALIGNMENT) * _ALIGNMENT
    end = 0
    for first, last in spans:
        if first < end:
            raise ArtifactError("tensors that overlap")
        end = last
    if start + end > len(reader.data):
        raise ArtifactError("the file ends before its tensors do")


def _expected(shape: LlamaShape, config: ModelConfig) -> dict[str, Any]:
    (epsilon,) = struct.unpack("<f", struct.pack("<f", shape.epsilon))
    own = {
        "context_length": config.max_seq_length,
        "embedding_length": shape.width,
        "block_count": shape.blocks,
        "feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.layer_norm_epsilon": epsilon,
        "attention.causal": False,
        "pooling_type": shape.pooling,
    }
    return {
        "general.architecture": shape.architecture,
        **{f"{shape.architecture}.{name}": value for name, value in own.items()},
        "tokenizer.ggml.tokens": config.vocab_size,
    }


def _tensor(reader: _Reader) -> tuple[int, int]:
    """Read one tensor's description and return where its bytes begin and end, after the header."""
    name = reader.string()
    rank = reader.scalar(_KIND)
    if not 1 <= rank <= 2:
        raise ArtifactError(f"tensor {name!r} has {rank} dimensions")
    sizes = [reader.count() for _ in range(rank)]
    kind, offset = reader.scalar(_KIND), reader.count()
    if kind not in _BLOCKS:
        raise ArtifactError(f"tensor {name!r} is of a kind that is not written here")
    if kind != _F32 and (len(sizes) == 1 or name in _ALWAYS_F32):
        raise ArtifactError(f"tensor {name!r} is not float32")
    elements, size = _BLOCKS[kind]
    if sizes[0] % elements or offset % _ALIGNMENT:
        raise ArtifactError(f"tensor {name!r} is misaligned")
    rows = sizes[1] if len(sizes) > 1 else 1
    return offset, offset + sizes[0] // elements * size * rows
