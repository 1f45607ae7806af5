"""What a format's exporter provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from asterisk.artifact import Thresholds
from asterisk.model.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights are stored. `asterisk.exporters.thresholds` says what that may cost.

    ``bits`` are those that a weight takes, about: recipes are tried from the fewest on.
    """

    name: str
    summary: str
    bits: float = 32


@dataclass(frozen=True, slots=True)
class Written:
    """What an exporter wrote: the file the engine opens, and versions of the tools used."""

    entry: str
    versions: Mapping[str, str]


class Exporter(Protocol):
    """What the entry points of `asterisk.exporters` name: a class without arguments.

    ``recipes`` lists the recipes, the default one first.
    """

    format: ClassVar[str]
    recipes: ClassVar[tuple[Recipe, ...]]

    def thresholds(self, recipe: Recipe, layers: int) -> Thresholds:
        """Return how far a model of so many layers may stray from FP32 under ``recipe``."""
        ...

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Sequence[Sequence[int]],
    ) -> Written:
        """Write the engine's files of ``checkpoint`` under ``recipe`` into ``folder``.

        ``samples`` are token ids of texts, special tokens included, to calibrate rounding on. The
        same bytes for the same input wherever the format allows it. Raises MissingExtra where a
        converter is not installed, UsageError for what the format cannot hold.
        """
        ...
