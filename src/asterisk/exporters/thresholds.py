"""How far a recipe may stray from FP32, by depth: one table for the built-in formats.

Rounding errors add up from layer to layer, so a deep model is allowed more. The figures are what
was measured on trained models of each depth, with room for the next one.
"""

from __future__ import annotations

from asterisk.artifact import Thresholds

SHALLOW, MEDIUM = 3, 8  # layers: up to three, up to eight, more

EXACT = Thresholds(cosine_mean=0.99999, cosine_min=0.99999, overlap_at_10=0.99)
_HALF = Thresholds(cosine_mean=0.9999, cosine_min=0.9999, overlap_at_10=0.98)
_TANH = Thresholds(cosine_mean=0.9999, cosine_min=0.9995, overlap_at_10=0.98)
_INT8 = (
    Thresholds(cosine_mean=0.998, cosine_min=0.985, overlap_at_10=0.95),
    Thresholds(cosine_mean=0.998, cosine_min=0.985, overlap_at_10=0.94),
    # A text in a thousand is far off in so deep a model, and it is not the same one in each format.
    Thresholds(cosine_mean=0.997, cosine_min=0.97, overlap_at_10=0.92),
)
_NF4_TABLE = (
    Thresholds(cosine_mean=0.99, cosine_min=0.97, overlap_at_10=0.88),
    Thresholds(cosine_mean=0.99, cosine_min=0.97, overlap_at_10=0.88),
    Thresholds(cosine_mean=0.99, cosine_min=0.95, overlap_at_10=0.86),
)

TABLE: dict[str, tuple[Thresholds, Thresholds, Thresholds]] = {
    "fp32": (EXACT, EXACT, EXACT),
    "f16": (_HALF, _HALF, _HALF),
    "int8": _INT8,
    "q8_0": _INT8,
    "int8-emb4": _NF4_TABLE,
    # llama.cpp's GELU is the tanh approximation, which adds up.
    "gguf fp32": (EXACT, EXACT, _TANH),
    "gguf f16": (_HALF, _HALF, _TANH),
    "q6_k": (Thresholds(cosine_mean=0.995, cosine_min=0.985, overlap_at_10=0.9),) * 3,
    "q4_k_m": (Thresholds(cosine_mean=0.98, cosine_min=0.94, overlap_at_10=0.8),) * 3,
}


def thresholds(recipe: str, layers: int) -> Thresholds:
    """Return what a built-in ``recipe`` is held to on a model of so many layers."""
    shallow, medium, deep = TABLE[recipe]
    return shallow if layers <= SHALLOW else medium if layers <= MEDIUM else deep
