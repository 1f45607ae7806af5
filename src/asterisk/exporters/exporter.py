"""What a format's exporter provides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from asterisk.artifact import Thresholds
from asterisk.model.checkpoint import Checkpoint

EXACT = Thresholds(cosine_mean=0.99999, cosine_min=0.99999, overlap_at_10=0.99)
QUANTISED = Thresholds(cosine_mean=0.998, cosine_min=0.985, overlap_at_10=0.95)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights are stored and what that may cost in fidelity."""

    name: str
    summary: str
    thresholds: Thresholds


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

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the engine's files of ``checkpoint`` under ``recipe`` into ``folder``.

        The same bytes for the same input wherever the format allows it. Raises MissingExtra where
        a converter is not installed.
        """
        ...
