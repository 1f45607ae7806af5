"""Which threshold gives a wanted precision, by pairs that somebody has judged.

Either the user's own pairs, or counts that ship: how many of the pairs found at each threshold were
planted near-duplicates, among real texts (docs/deduplicating.md says which, and the command that
counts them again). Both speak of pairs like those they were counted on, and of a set with as many
near-duplicates among its texts as theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.apps.dedup.result import THRESHOLD
from asterisk.artifact import share_space
from asterisk.common.errors import InputError, UsageError
from asterisk.common.text_files import lines

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

PRECISION = 0.988
FEWEST = 20  # pairs that decide: fewer say nothing about a share
LEAST, STEP = 0.70, 0.005


@dataclass(frozen=True, slots=True)
class Point:
    """At ``threshold``, ``right`` of the pairs found were duplicates and ``wrong`` were not."""

    threshold: float
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of the found pairs that are right; 0 where none was found."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """The share of the duplicates that were found."""
        return self.right / max(1, self.right + self.missed)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the precision (Wilson, 1927)."""
        count, z = max(1, self.right + self.wrong), 1.959964
        middle = (self.precision + z * z / (2 * count)) / (1 + z * z / count)
        share = self.precision * (1 - self.precision) / count + z * z / (4 * count * count)
        half = z * math.sqrt(share) / (1 + z * z / count)
        return max(0.0, middle - half), min(1.0, middle + half)

    def told(self) -> str:
        """Say what the estimate is."""
        low, high = self.interval()
        return (
            f"precision {self.precision:.3f} (95 % interval {low:.3f} to {high:.3f}), "
            f"recall {self.recall:.3f}, on {self.right + self.wrong:,} judged pairs found"
        )


def counted(cosines: Sequence[float], same: Sequence[bool]) -> list[Point]:
    """Return a point for every cosine among judged pairs, ascending."""
    judged = sorted(zip(cosines, same, strict=True), reverse=True)
    every = sum(same)
    points: list[Point] = []
    right = wrong = 0
    for place, (cosine, duplicate) in enumerate(judged):
        right += duplicate
        wrong += not duplicate
        if place + 1 == len(judged) or judged[place + 1][0] < cosine:
            points.append(Point(cosine, right, wrong, every - right))
    return points[::-1]


def chosen(points: Sequence[Point], precision: float, where: str) -> Point:
    """Return the lowest threshold whose precision, and that of all above it, is the wanted one.

    UsageError where there is none, with the best there is; thresholds at which fewer than 20 pairs
    were found count for nothing.
    """
    heard = [point for point in points if point.right + point.wrong >= FEWEST]
    if not heard:
        raise UsageError(f"{where}: at no threshold are {FEWEST} of the pairs found")
    best: Point | None = None
    for point in sorted(heard, key=lambda point: -point.threshold):
        if point.precision < precision:
            break
        best = point
    # Precision need not rise with the threshold: a lucky low one is no promise, a whole range is.
    if best is None:
        most = max(heard, key=lambda point: (point.precision, -point.threshold))
        raise UsageError(
            f"{where}: precision {precision:g} is not reached; the best there is is "
            f"{most.precision:.3f}, from --threshold {most.threshold:.3f} on"
        )
    return best


def shipped(fingerprint: str) -> list[Point]:
    """Return the points that ship for an embedding space; UsageError if there are none for it."""
    for path in files("asterisk.apps.dedup").joinpath("calibrations").iterdir():
        table = json.loads(path.read_text("utf-8"))
        if share_space((fingerprint,), table["fingerprints"]):
            return [Point(*values) for values in table["points"]]
    raise UsageError(
        "no calibration ships for this model: give --labelled PAIRS.tsv, or a --threshold"
    )


def default_threshold(fingerprint: str) -> float:
    """Return the threshold to take where none is given: `PRECISION`'s, else `THRESHOLD`."""
    try:
        points = shipped(fingerprint)
    except UsageError:
        return THRESHOLD
    return chosen(points, PRECISION, "shipped calibration").threshold


def labelled(path: Path) -> tuple[list[bool], list[str], list[str]]:
    """Read judged pairs: 1 or 0, text, text, with tabs between, a pair a line."""
    same: list[bool] = []
    first: list[str] = []
    second: list[str] = []
    for place, line in lines(path):
        cells = line.split("\t")
        if cells == [""]:
            continue
        if len(cells) != 3 or cells[0] not in ("0", "1") or not all(map(str.strip, cells)):
            raise InputError(f"{place}: not 0 or 1, a text, and a text")
        same.append(cells[0] == "1")
        first.append(cells[1])
        second.append(cells[2])
    return same, first, second


def judged(
    path: Path, runtime: Runtime, prompt_name: str | None = None
) -> tuple[list[float], list[bool]]:
    """Return the cosine of each labelled pair, as deduplication takes it, and the judgement."""
    import numpy as np

    from asterisk.apps.dedup.normal import normal
    from asterisk.apps.dedup.vectors import Vectors
    from asterisk.common.vectors import to_int8

    same, first, second = labelled(path)
    if not same:
        raise InputError(f"{path} holds no pairs")
    forms = [[normal(text) for text in texts] for texts in (first, second)]
    for number, pair in enumerate(zip(*forms, strict=True), 1):
        if not all(pair):
            raise InputError(f"{path}, pair {number}: a text without any words")
    numbers = {form: number for number, form in enumerate(dict.fromkeys(forms[0] + forms[1]))}
    vectors = Vectors(to_int8(runtime.encode(list(numbers), prompt_name=prompt_name)))
    places = [np.array([numbers[form] for form in side], np.int64) for side in forms]
    return vectors.of_pairs(*places).tolist(), same
