"""What each recipe costs and gives, and which of them nothing else beats in everything.

One versioned value; the JSON is the truth, the page is rendered from it. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1
TIMED = ("20", "128")  # tokens of the texts whose time counts


@dataclass(slots=True)
class Recipe:
    """One recipe of one format, as it was measured; None is a figure that is not there.

    ``size`` of the artifact and ``pss`` of a process after 200 texts of 20 tokens, in bytes;
    ``ms`` the median of one text on one thread by tokens; ``fidelity`` the gate's figures;
    ``quality`` Spearman and nDCG@10 times 100 by name. ``front`` is set by `mark`.
    """

    format: str
    title: str
    recipe: str
    size: int
    pss: int | None = None
    ms: dict[str, float] = field(default_factory=dict)
    fidelity: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)
    front: bool = False

    def costs(self) -> tuple[float, ...] | None:
        """Return what should be small: size, memory, times, distance from FP32; None if unknown."""
        times = [self.ms.get(tokens) for tokens in TIMED]
        mean = self.fidelity.get("cosine_mean")
        known = [cost for cost in (self.size, self.pss, *times) if cost is not None]
        if mean is None or len(known) < 2 + len(TIMED):
            return None
        return (*known, 1 - mean)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Tell whether ``one`` is at least as small everywhere and smaller somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def mark(recipes: Iterable[Recipe]) -> None:
    """Set ``front`` where no other recipe dominates; a recipe that lacks a figure is never on it.

    Nor does it keep another off.
    """
    known = [(recipe, costs) for recipe in recipes if (costs := recipe.costs()) is not None]
    for recipe, costs in known:
        recipe.front = not any(dominates(other, costs) for _, other in known)


@dataclass(slots=True)
class Pareto:
    """A whole run: what was asked, on which machine, what came out.

    ``failed`` has a line for each recipe that could not be exported, measured or evaluated.
    """

    checkpoint: dict[str, str]
    settings: dict[str, Any]
    machine: dict[str, Any]
    warnings: list[str]
    recipes: list[Recipe]
    failed: dict[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the run's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Pareto:
        """Read what `to_json` wrote; ValueError for another schema."""
        values: dict[str, Any] = json.loads(text)
        if values.get("schema") != SCHEMA:
            raise ValueError(f"a page of schema {values.get('schema')}, not {SCHEMA}")
        recipes: list[Mapping[str, Any]] = values.pop("recipes")
        return cls(recipes=[Recipe(**recipe) for recipe in recipes], **values)
