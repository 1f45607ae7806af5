"""llama.cpp on a GGUF: ids in, the pooled vector out, no server in between.

The file has its vocabulary, which llama.cpp is told to skip: 18 MB and two thirds of the time to
load. A ``bert`` is encoded. A ``gpt2``, as which the original project's encoder is written, is
decoded, without causal mask and with an emptied cache; the embedding is the first part of its
output. The maximum over tokens, the root of the length and ``Dense`` maps are computed here.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from asterisk.artifact import Artifact
from asterisk.common import process_memory, tensors
from asterisk.common.errors import ArtifactError, EngineError
from asterisk.model.config import LIMITS, Dense, LlamaShape, ModelConfig, llama_shape, tensor_shapes
from asterisk.runtimes import llama_cpp
from asterisk.runtimes.engine import ArtifactEngine, Vector

DENSE = "dense.safetensors"  # the maps after pooling, where llama.cpp has no place for them
SMALLEST_RESERVE = 32  # tokens
CLEARED_IN_EXCESS = 64 << 20  # bytes of memory for tokens that a text does not have


class _Model:
    """Weights, mapped once and shared by every session; freed with the last of them."""

    def __init__(self, artifact: Artifact) -> None:
        self.shape = shape = check_header(artifact.entry, artifact.config)
        self.dense = _dense(artifact) if shape.dense_outside else ()
        self.library = llama_cpp.library()
        dll = self.library.dll
        overrides = (llama_cpp.Override * 3)(
            llama_cpp.Override.of("tokenizer.ggml.model", "no_vocab"),
            llama_cpp.Override.of(f"{shape.architecture}.vocab_size", artifact.config.vocab_size),
        )  # the third stays empty and ends the list
        params = dll.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = llama_cpp.LOAD_MMAP
        params.kv_overrides = ctypes.addressof(overrides)
        self.handle = dll.llama_model_load_from_file(os.fsencode(artifact.entry), params)
        if not self.handle:
            raise ArtifactError(f"llama.cpp refuses {artifact.entry}: {self.library.error()}")
        self._free = weakref.finalize(self, dll.llama_model_free, self.handle)
        self._free.atexit = False  # the process's end frees it anyway


class GgufEngine(ArtifactEngine):
    """A context of its own on the shared weights, one thread inside."""

    format: ClassVar[str] = "gguf"

    def __init__(self, model: _Model, config: ModelConfig, longest: int) -> None:
        library = model.library
        params = library.dll.llama_context_default_params()
        # One text is one batch: an encoder cannot split it, and aborts if it does not fit.
        params.n_ctx = config.max_seq_length
        params.n_batch = params.n_ubatch = longest
        params.n_threads = params.n_threads_batch = 1
        params.embeddings = True
        params.pooling_type = model.shape.pooling
        params.flash_attn_type = llama_cpp.FLASH_ATTENTION
        params.type_k = params.type_v = llama_cpp.FLOAT32  # of a cache, where there is one
        context = library.dll.llama_init_from_model(model.handle, params)
        if not context:
            raise EngineError(f"llama.cpp: {library.error()}")
        self._library, self._context = library, context
        # An encoder has no memory to empty.
        self._memory = library.dll.llama_get_memory(context)
        self._call = library.dll.llama_decode if self._memory else library.dll.llama_encode
        # The argument keeps the weights until the context is gone.
        self._free = weakref.finalize(self, lambda _: library.dll.llama_free(context), model)
        self._free.atexit = False
        self._config, self._shape, self._dense = config, model.shape, model.dense
        self._longest, self._reserved = longest, 0
        self._tokens = (ctypes.c_int32 * longest)()
        self._batch = llama_cpp.Batch(token=self._tokens)

    @classmethod
    def open(cls, artifact: Artifact, sessions: int) -> list[Self]:
        """Map the weights once and open a context for each session; see `ArtifactEngine.open`."""
        return cls.open_for(artifact, sessions, artifact.config.max_seq_length)

    @classmethod
    def open_for(cls, artifact: Artifact, sessions: int, longest: int) -> list[Self]:
        """Do the same with contexts of ``longest`` tokens: logits are cleared for so many only."""
        model = _Model(artifact)
        return [cls(model, artifact.config, longest) for _ in range(sessions)]

    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        if not self._free.alive:
            raise EngineError("llama.cpp: the engine has been closed")
        count = len(ids)
        if count > self._longest:
            raise EngineError(f"{count} tokens; 1 to {self._longest} are possible")
        if count > self._reserved:
            self._reserve(count)
        self._tokens[:count] = list(ids)
        self._encode(count)
        vector = self._pooled(count)
        for matrix, bias, dense in self._dense:
            # Not `@`: OpenBLAS would start threads for it.
            vector = np.einsum("oi,i->o", matrix, vector) + bias
            if dense.activation == "tanh":
                np.tanh(vector, out=vector)
        return vector

    def close(self) -> None:
        """Release the context, and the weights with the last one."""
        self._free()

    def _encode(self, count: int) -> None:
        self._batch.n_tokens = count
        if self._memory:
            self._library.dll.llama_memory_clear(self._memory, False)
        if status := self._call(self._context, self._batch):
            error = self._library.error()
            raise EngineError(f"llama.cpp cannot encode: {error} (status {status})")

    def _pooled(self, count: int) -> Vector:
        dll, config = self._library.dll, self._config
        size = config.hidden_size if self._shape.dense_outside else config.embedding_size
        if self._shape.pooling == llama_cpp.POOL_NONE:
            found, rows = dll.llama_get_embeddings(self._context), count
        else:
            found, rows = dll.llama_get_embeddings_seq(self._context, 0), 1
        if not found:
            raise EngineError("llama.cpp: no embedding came out")
        # A copy: the next call overwrites what `found` points at.
        data = bytearray(ctypes.string_at(found, 4 * size * rows))
        vector: Vector = np.frombuffer(data, np.float32)
        if config.pooling == "max":
            vector = vector.reshape(count, size).max(0)
        elif config.pooling == "mean_sqrt_len_tokens":
            vector *= np.float32(math.sqrt(count))
        return vector

    def _reserve(self, count: int) -> None:
        """Have llama.cpp reserve its output for ``count`` tokens, and take that memory back.

        Whenever a text is longer than any before, it clears a row of logits for every token,
        vocabulary times 4 bytes, although an encoder has none. Powers of two, so that texts sorted
        by length do not clear 100 MB hundreds of times, but not much more than is needed: a token
        of a multilingual vocabulary takes 1 MB.
        """
        step = max(SMALLEST_RESERVE, CLEARED_IN_EXCESS // (4 * self._config.vocab_size))
        power = max(SMALLEST_RESERVE, 1 << (count - 1).bit_length())
        reserved = min(power, -(-count // step) * step, self._longest)
        ctypes.memset(self._tokens, 0, ctypes.sizeof(self._tokens))
        self._encode(reserved)
        if start := self._library.dll.llama_get_logits(self._context):
            process_memory.forget(start, 4 * reserved * self._config.vocab_size)
        self._reserved = reserved


def _dense(artifact: Artifact) -> tuple[tuple[Vector, Vector, Dense], ...]:
    """Return matrix, bias and description of each map after pooling."""
    path, config = artifact.folder / DENSE, artifact.config
    if DENSE not in artifact.manifest.files:
        raise ArtifactError(f"{artifact.folder}: no hash for {DENSE}")
    shapes = {n: shape for n, shape in tensor_shapes(config).items() if n.startswith("dense.")}
    size = 4 * sum(map(math.prod, shapes.values()))
    found = tensors.read(path, largest=size + tensors.LARGEST_HEADER).arrays
    if {name: value.shape for name, value in found.items()} != shapes:
        raise ArtifactError(f"{path} does not hold the Dense maps of the manifest")
    maps = []
    for index, dense in enumerate(config.dense):
        bias = found.get(f"dense.{index}.bias", np.zeros(dense.out_features, np.float32))
        maps.append((found[f"dense.{index}.weight"], bias, dense))
    return tuple(maps)


_U32, _STRING, _ARRAY, _U64 = 4, 8, 9, 10  # kinds of values
_SCALARS = dict(enumerate(map(struct.Struct, ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))))
_SCALARS |= {_U64: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_LARGEST = 1 << 32  # of any count: products of two still mean something
_MOST = 4_096  # keys or tensors; bytes of a string
_MOST_ELEMENTS = LIMITS["vocab_size"]  # of an array: tokens, their types, scores, merges
_ALIGNMENT = 32
_F32 = 0
# Tensor kind: elements and bytes of a block. F32, F16, Q8_0, Q4_K, Q6_K.
_BLOCKS = {_F32: (1, 4), 1: (1, 2), 8: (32, 34), 12: (256, 144), 14: (256, 210)}
_ALWAYS_F32 = {"position_embd.weight", "token_types.weight"}
_TOKENIZER = """
    model pre tokens token_type scores merges token_type_count bos_token_id eos_token_id
    unknown_token_id seperator_token_id padding_token_id cls_token_id mask_token_id add_bos_token
    add_eos_token add_sep_token add_space_prefix remove_extra_whitespaces precompiled_charsmap
    normalizer.lowercase normalizer.strip_accents
"""
_KEYS = {
    *(f"general.{name}" for name in ("name", "file_type", "quantization_version")),
    *(f"tokenizer.ggml.{name}" for name in _TOKENIZER.split()),
}


def check_header(path: Path, config: ModelConfig) -> LlamaShape:
    """Return the model's shape; ArtifactError unless ``path`` holds the whole of such a model."""
    shape = llama_shape(config)
    if shape is None:
        raise ArtifactError(f"{path}: llama.cpp has no architecture of the manifest's shape")
    try:
        with path.open("rb") as it, mmap.mmap(it.fileno(), 0, access=mmap.ACCESS_READ) as data:
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

    def scalar(self, kind: int = _U32) -> Any:
        layout = self._layout(kind)
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def count(self, most: int = _LARGEST) -> int:
        value: int = self.scalar(_U64)
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
        kind = self.scalar()
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(kind)
        kind, count = self.scalar(), self.count(_MOST_ELEMENTS)
        if kind != _STRING:
            self.at += count * self._layout(kind).size
            return count
        at, data, length = self.at, self.data, _SCALARS[_U64].unpack_from
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
    end = 0
    for first, last in sorted(_tensor(reader) for _ in range(tensors)):
        if first < end:
            raise ArtifactError("tensors that overlap")
        end = last
    if -(-reader.at // _ALIGNMENT) * _ALIGNMENT + end > len(reader.data):
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
    name, rank = reader.string(), reader.scalar()
    if not 1 <= rank <= 2:
        raise ArtifactError(f"tensor {name!r} has {rank} dimensions")
    sizes = [reader.count() for _ in range(rank)]
    kind, offset = reader.scalar(), reader.count()
    if kind not in _BLOCKS:
        raise ArtifactError(f"tensor {name!r} is of a kind that is not written here")
    if kind != _F32 and (rank == 1 or name in _ALWAYS_F32):
        raise ArtifactError(f"tensor {name!r} is not float32")
    elements, size = _BLOCKS[kind]
    if sizes[0] % elements or offset % _ALIGNMENT:
        raise ArtifactError(f"tensor {name!r} is misaligned")
    return offset, offset + math.prod(sizes) // elements * size
