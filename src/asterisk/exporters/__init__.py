"""From a checkpoint to an artifact, one module a format; here is what all exporters provide.

To add a recipe to a format: name it in the ``recipes`` of the format's exporter (in `onnx`,
`tflite` or `gguf`), write what it stores in that exporter's ``write``, and add what it may cost to
`THRESHOLDS`. A format of its own is a class as `Exporter` describes it, registered under the entry
point group `asterisk.exporters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from asterisk.artifact import Thresholds
from asterisk.model.checkpoint import Checkpoint

Samples = Sequence[Sequence[int]]  # token ids of texts, special tokens included
SHALLOW, MEDIUM = 3, 8  # layers: up to three, up to eight, more
# Cosine mean and minimum, overlap@10.
EXACT = Thresholds(0.99999, 0.99999, 0.99)
_HALF = Thresholds(0.9999, 0.9999, 0.98)
_TANH = Thresholds(0.9999, 0.9995, 0.98)
# A text in a thousand is far off in so deep a model, and it is not the same one in each format.
_INT8 = (
    Thresholds(0.998, 0.985, 0.95),
    Thresholds(0.998, 0.985, 0.94),
    Thresholds(0.997, 0.97, 0.92),
)
_EMB4 = Thresholds(0.99, 0.97, 0.88), Thresholds(0.99, 0.97, 0.88), Thresholds(0.99, 0.95, 0.86)

# By recipe, or by format and recipe, for shallow, medium and deep models. Rounding errors add up
# from layer to layer, so a deep model is allowed more. The figures are what was measured on trained
# models of each depth, with room for the next one.
THRESHOLDS: dict[str, tuple[Thresholds, Thresholds, Thresholds]] = {
    "fp32": (EXACT, EXACT, EXACT),
    "f16": (_HALF, _HALF, _HALF),
    "int8": _INT8,
    "q8_0": _INT8,
    "int8-emb4": _EMB4,
    # llama.cpp's GELU is the tanh approximation, whose error adds up.
    "gguf fp32": (EXACT, EXACT, _TANH),
    "gguf f16": (_HALF, _HALF, _TANH),
    "q6_k": (Thresholds(0.995, 0.985, 0.9),) * 3,
    "q4_k_m": (Thresholds(0.98, 0.94, 0.8),) * 3,
}


def thresholds(recipe: str, layers: int) -> Thresholds:
    """Return the entry of `THRESHOLDS` for ``recipe`` on a model of so many layers."""
    shallow, medium, deep = THRESHOLDS[recipe]
    return shallow if layers <= SHALLOW else medium if layers <= MEDIUM else deep


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights are stored."""

    name: str
    summary: str
    bits: float = (
        32  # about how many a weight takes: of several recipes the smallest is tried first
    )


@dataclass(frozen=True, slots=True)
class Written:
    """What an exporter wrote."""

    entry: str  # the file that the engine opens
    versions: Mapping[str, str]  # of the tools used


class Exporter(Protocol):
    """What the entry points of `asterisk.exporters` name: a class without arguments."""

    format: ClassVar[str]
    recipes: ClassVar[tuple[Recipe, ...]]  # the default one first

    def thresholds(self, recipe: Recipe, layers: int) -> Thresholds:
        """Return how far a model of so many layers may stray from FP32."""
        own = f"{self.format} {recipe.name}"
        return thresholds(own if own in THRESHOLDS else recipe.name, layers)

    def write(
        self, checkpoint: Checkpoint, recipe: Recipe, folder: Path, samples: Samples
    ) -> Written:
        """Write the engine's files of ``checkpoint`` into ``folder``, calibrated on ``samples``.

        The same input gives the same bytes wherever the format allows it. MissingExtra where a
        converter is not installed, UsageError for what the format cannot hold.
        """
        ...
