"""ggml's tensor types: which one a recipe gives a matrix, and the packing itself.

Plain types are gguf's own numpy code. K-quants search for their scales, and what searches is
llama.cpp's function, called in the library that the runtime uses: the same bytes that
``llama-quantize`` writes, without a compiler or a file in between.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import EngineError, UsageError
from asterisk.model.checkpoint import Array
from asterisk.runtimes import llama_cpp

Packed = npt.NDArray[Any]
PLAIN = {"fp32": "F32", "f16": "F16", "q8_0": "Q8_0", "q6_k": "Q6_K"}
MIXED = "q4_k_m"
# Values that share scales; a row holds whole blocks. The others can end anywhere.
BLOCK = {"Q8_0": 32, "Q4_K": 256, "Q6_K": 256}
_PLACE = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


def kind_of(recipe: str, name: str, blocks: int) -> str:
    """Return the type of the matrix ``name`` in a model of so many ``blocks``.

    For ``q4_k_m`` that is llama.cpp's choice (``llama_tensor_get_type``): six bits for a token
    table without an output matrix beside it, and for values and the narrowing feed-forward matrix
    in the first and last eighth of the blocks and in every third between them.
    """
    if recipe != MIXED:
        return PLAIN[recipe]
    place = _PLACE.fullmatch(name)
    if place is None:
        return "Q6_K"
    index, eighth = int(place[1]), blocks // 8
    more = index < eighth or index >= 7 * blocks // 8 or (index - eighth) % 3 == 2
    return "Q6_K" if more and place[2] in ("attn_v", "ffn_down") else "Q4_K"


def check_rows(recipe: str, *lengths: int) -> None:
    """Raise UsageError unless rows of these lengths hold whole blocks; it says what would fit."""

    def fits(recipe: str) -> bool:
        step = BLOCK.get(PLAIN.get(recipe, "Q6_K"), 1)
        return not any(length % step for length in lengths)

    if not fits(recipe):
        step = BLOCK[PLAIN.get(recipe, "Q6_K")]
        others = "q8_0, f16 or fp32" if fits("q8_0") else "f16 or fp32"
        raise UsageError(
            f"gguf {recipe} needs rows of multiples of {step}, and this model has rows of "
            f"{' and '.join(map(str, sorted(set(lengths))))}; use {others}"
        )


def pack(values: Array, kind: str, gguf: Any) -> Packed:
    """Return float32 ``[rows, n]`` in the type called ``kind``: uint8 ``[rows, bytes]``, or floats.

    Raises MissingExtra where llama.cpp is needed and not installed.
    """
    if kind == "F32":
        return values
    if kind in ("F16", "Q8_0"):
        packed: Packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        return packed
    return _search(values, kind, gguf)


def _search(values: Array, kind: str, gguf: Any) -> Packed:
    number = gguf.GGMLQuantizationType[kind]
    elements, size = gguf.GGML_QUANT_SIZES[number]
    rows, length = values.shape
    values = np.ascontiguousarray(values, np.float32)
    packed = np.zeros((rows, length // elements * size), np.uint8)
    function = llama_cpp.library().dll.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    function.argtypes += [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    # No importance matrix: every weight counts the same.
    written = function(number, values.ctypes.data, packed.ctypes.data, 0, rows, length, None)
    if written != packed.nbytes:
        raise EngineError(f"llama.cpp packed {written} bytes of {kind}, not {packed.nbytes}")
    return packed
