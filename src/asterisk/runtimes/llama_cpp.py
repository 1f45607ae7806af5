"""llama.cpp's C functions, called directly in xllamacpp's shared library.

xllamacpp's own interface is llama-server: JSON in and out of threads and slots, and 25 MB that an
embedding never needs. The same file exports all of ``llama.h`` of the pinned release, and `ctypes`
reaches that without importing the package. The layout of two structures belongs to one release, so
another release is refused, and so is a library whose defaults read back wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from ctypes import c_bool, c_char, c_float, c_int8, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from asterisk.common.errors import EngineError, MissingExtra

VERSION = "2026.10.11549"
LOAD_MMAP = 1  # llama_load_mode
POOL_NONE = 0  # llama_pooling_type
FLASH_ATTENTION = 1  # llama_flash_attn_type
FLOAT32 = 0  # ggml_type
CPU_NEEDS = {"avx2", "bmi2", "f16c", "fma"}  # what the x86-64 wheel is compiled for
_LOG_ERROR = 4  # ggml_log_level
_ADVICE = "install the right one with: pip install 'asterisk-edge[gguf]'"
# Both structures pass by value. Room behind them keeps a larger one from overrunning ours: the
# callee finds its fields from the front, whatever follows.
_ROOM = ("reserved", ctypes.c_uint8 * 256)
# Their fields by type; behind some, the default that only the expected layout reads back.
_MODEL = (
    (c_void_p, "devices=0 tensor_buft_overrides=0"),
    (c_int32, "n_gpu_layers=-1 split_mode=1 load_mode=-1 lazy_mode=1 main_gpu=0"),
    (c_void_p, "tensor_split progress_callback progress_callback_user_data kv_overrides=0"),
    (c_bool, "vocab_only=0 check_tensors=0 use_extra_bufts=1 no_host=0 no_alloc=0 load_mtp=0"),
)
_CONTEXT = (
    (c_uint32, "n_ctx=512 n_batch=2048 n_ubatch=512 n_seq_max=1 n_rs_seq"),
    (c_uint32, "n_outputs_max=0 n_outputs_max_per_seq=1"),
    (c_int32, "n_threads=4 n_threads_batch=4 ctx_type rope_scaling_type"),
    (c_int32, "pooling_type=-1 attention_type=-1 flash_attn_type=-1"),
    (c_float, "rope_freq_base rope_freq_scale yarn_ext_factor=-1 yarn_attn_factor"),
    (c_float, "yarn_beta_fast yarn_beta_slow"),
    (c_uint32, "yarn_orig_ctx=0"),
    (c_float, "defrag_thold=-1"),
    (c_void_p * 2, "callbacks"),
    (c_int32, "type_k=1 type_v=1"),
    (c_void_p * 3, "abort"),
    (c_bool, "embeddings=0 offload_kqv=1 no_perf=1 op_offload=1 swa_full=1 kv_unified=0"),
    (c_void_p, "samplers=0"),
    (c_size_t, "n_samplers=0"),
    (c_void_p, "ctx_other=0"),
)


def _fields(rows: tuple[tuple[Any, str], ...]) -> list[tuple[str, Any]]:
    return [(it.partition("=")[0], kind) for kind, names in rows for it in names.split()] + [_ROOM]


def _defaults(rows: tuple[tuple[Any, str], ...]) -> dict[str, int]:
    pairs = [it.split("=") for _, names in rows for it in names.split() if "=" in it]
    return {name: int(default) for name, default in pairs}


class ModelParams(ctypes.Structure):
    """``llama_model_params``."""

    _fields_: ClassVar = _fields(_MODEL)


class ContextParams(ctypes.Structure):
    """``llama_context_params``."""

    _fields_: ClassVar = _fields(_CONTEXT)


class Batch(ctypes.Structure):
    """``llama_batch``; null pointers mean positions 0, 1, ... of one sequence, all put out."""

    _fields_: ClassVar = [
        ("n_tokens", c_int32),
        ("token", ctypes.POINTER(c_int32)),
        ("embd", ctypes.POINTER(c_float)),
        ("pos", ctypes.POINTER(c_int32)),
        ("n_seq_id", ctypes.POINTER(c_int32)),
        ("seq_id", c_void_p),
        ("logits", ctypes.POINTER(c_int8)),
    ]


class _Value(ctypes.Union):
    _fields_: ClassVar = [("int", c_int64), ("str", c_char * 128)]


class Override(ctypes.Structure):
    """``llama_model_kv_override``: a key to be read as if the file held this value."""

    _fields_: ClassVar = [("tag", c_int32), ("key", c_char * 128), ("value", _Value)]

    @classmethod
    def of(cls, key: str, value: int | str) -> Override:
        """Return one for an integer or a string."""
        if isinstance(value, int):
            return cls(0, key.encode(), _Value(int=value))
        return cls(3, key.encode(), _Value(str=value.encode()))


_MODEL_DEFAULTS, _CONTEXT_DEFAULTS = _defaults(_MODEL), _defaults(_CONTEXT)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_model_load_from_file": (c_void_p, (ctypes.c_char_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_free": (None, (c_void_p,)),
    "llama_encode": (c_int32, (c_void_p, Batch)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_get_embeddings": (c_void_p, (c_void_p,)),
    "llama_get_embeddings_seq": (c_void_p, (c_void_p, c_int32)),
    "llama_get_logits": (c_void_p, (c_void_p,)),
}


class Library:
    """The loaded library: ``dll.llama_*``, declared and silent on standard error."""

    def __init__(self, path: Path) -> None:
        self._error = ""
        try:
            self.dll = ctypes.CDLL(str(path))
        except OSError as failure:
            reason = f"llama.cpp cannot be loaded: {failure}"
            if "libgomp" in reason:
                how = "apt-get install libgomp1"
                reason = f"llama.cpp needs the system's libgomp; install it with: {how}"
            raise EngineError(reason) from None
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self.dll, name, None)
            if function is None:
                raise EngineError(f"{path} has no {name}; {_ADVICE}")
            function.restype, function.argtypes = result, arguments
        for values, defaults in (
            (self.dll.llama_model_default_params(), _MODEL_DEFAULTS),
            (self.dll.llama_context_default_params(), _CONTEXT_DEFAULTS),
        ):
            for name, default in defaults.items():
                if (found := getattr(values, name) or 0) != default:
                    raise EngineError(f"llama.cpp's {name} reads {found}, not {default}; {_ADVICE}")
        # Kept alive here: the library calls it as long as the process lasts.
        self._log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, c_void_p)(self._on_log)
        self.dll.llama_log_set(self._log, None)
        self.dll.llama_backend_init()

    def error(self) -> str:
        """Return the first error that it has logged since the last call, as one line."""
        error, self._error = self._error, ""
        return error or "no reason given"

    def _on_log(self, level: int, text: bytes, _: object) -> None:
        # The first line says what is wrong; those that follow, that something was.
        if level == _LOG_ERROR and not self._error:
            self._error = " ".join(text.decode(errors="replace").split())


@cache
def library() -> Library:
    """Return the library, loaded once; MissingExtra or EngineError where it cannot be."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise MissingExtra("xllamacpp", "gguf")
    package = Path(spec.origin).parent
    # The directory's name has the version; importlib.metadata would cost a device 3 MB.
    if not (package.parent / f"xllamacpp-{VERSION}.dist-info").is_dir():
        raise EngineError(f"xllamacpp is not version {VERSION}; {_ADVICE}")
    if os.uname().machine == "x86_64":  # or the library would end the process with SIGILL
        with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
            flags = next((line for line in lines if line.startswith("flags")), None)
            if flags and (missing := CPU_NEEDS - set(flags.split())):
                raise EngineError(f"llama.cpp needs a processor with {', '.join(sorted(missing))}")
    return Library(package / "xllamacpp.abi3.so")
