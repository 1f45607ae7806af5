"""Models beside one another: how good each is through its artifact, and what it costs.

One versioned value; the JSON is the truth, the page is rendered from it. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

SCHEMA = 1
METRICS = ("STS-B", "retrieval", "classification")


@dataclass(slots=True)
class Entry:
    """One model in one form, as it was measured; None or absent is a figure that is not there.

    ``size`` of its files and ``pss`` of a process after 200 texts of 20 tokens, in bytes; ``ms``
    the median of one text on one thread by tokens; ``quality`` by `METRICS`: Spearman, mean
    nDCG@10 and mean accuracy of a linear probe, times 100.
    """

    model: str
    title: str
    recipe: str
    size: int
    dimensions: int
    pss: int | None = None
    ms: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)

    def share(self, teacher: Mapping[str, float]) -> float | None:
        """Return the mean over `METRICS` as a share of ``teacher``'s; None if one is missing."""
        if not all(metric in self.quality and teacher.get(metric) for metric in METRICS):
            return None
        return fmean(self.quality[metric] / teacher[metric] for metric in METRICS)


@dataclass(slots=True)
class Comparison:
    """A whole run: what was asked, on which machine, what came out.

    ``teacher`` is the name and the quality, in FP32, of the model that shares are of; ``failed``
    has a line for each model that could not be prepared, measured or evaluated.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    warnings: list[str]
    teacher: str
    truth: dict[str, float]
    entries: list[Entry]
    failed: dict[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the run's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Read what `to_json` wrote; ValueError for another schema."""
        values: dict[str, Any] = json.loads(text)
        if values.get("schema") != SCHEMA:
            raise ValueError(f"a comparison of schema {values.get('schema')}, not {SCHEMA}")
        entries: list[Mapping[str, Any]] = values.pop("entries")
        return cls(entries=[Entry(**entry) for entry in entries], **values)
