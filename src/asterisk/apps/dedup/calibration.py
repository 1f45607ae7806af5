"""The threshold that gives a wanted precision, by pairs that somebody has judged.

Either the user's own pairs, or counts that ship: how many of the pairs found at each threshold were
planted near-duplicates, among real texts (see dedup.md in benchmarks/results). Both hold for texts
like those, with as many near-duplicates among them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asterisk.apps.dedup.texts import normalize
from asterisk.apps.dedup.vectors import Vectors
from asterisk.artifact import share_space
from asterisk.common.errors import InputError, UsageError
from asterisk.common.text_files import lines
from asterisk.common.vectors import to_int8

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

THRESHOLD = 0.9
"""The cosine from which two texts are near-duplicates by default, for models that ship none."""

PRECISION = 0.988
FEWEST = 20  # pairs that decide: fewer say nothing about a share


@dataclass(frozen=True, slots=True)
class Point:
    """What is found at a threshold."""

    threshold: float
    right: int  # of the pairs that were found, duplicates
    wrong: int  # the others
    missed: int  # duplicates that were not found

    @property
    def precision(self) -> float:
        """The share of the found pairs that are right; 0 if none was found."""
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

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"precision {self.precision:.3f} (95 % interval {low:.3f} to {high:.3f}), "
            f"recall {self.recall:.3f}, on {self.right + self.wrong:,} judged pairs found"
        )


def count_points(cosines: Sequence[float], same: Sequence[bool]) -> list[Point]:
    """Return a point for every cosine among judged pairs, ascending."""
    order = np.argsort(cosines, kind="stable")
    thresholds, starts = np.unique(np.array(cosines)[order], return_index=True)
    missed = np.concatenate([[0], np.cumsum(np.array(same, np.int64)[order])])
    right = missed[-1] - missed[starts]
    wrong = len(order) - starts - right
    table = zip(thresholds, right, wrong, missed[starts], strict=True)
    return [Point(*(value.item() for value in row)) for row in table]


def choose(points: Sequence[Point], precision: float, source: str) -> Point:
    """Return the lowest threshold from which on ``precision`` is reached throughout.

    Thresholds at which fewer than `FEWEST` pairs were found do not count. UsageError, which names
    ``source`` and the best precision there is, if none reaches it.
    """
    enough = [point for point in points if point.right + point.wrong >= FEWEST]
    if not enough:
        raise UsageError(f"{source}: at no threshold are {FEWEST} of the pairs found")
    enough.sort(key=lambda point: -point.threshold)
    # Precision need not rise with the threshold: a lucky low one is no promise, a whole range is.
    reached = list(itertools.takewhile(lambda point: point.precision >= precision, enough))
    if not reached:
        best = max(enough, key=lambda point: (point.precision, -point.threshold))
        raise UsageError(
            f"{source}: precision {precision:g} is not reached; the best there is is "
            f"{best.precision:.3f}, from --threshold {best.threshold:.3f} on"
        )
    return reached[-1]


def shipped_points(fingerprint: str) -> list[Point]:
    """Return the points that ship for an embedding space; UsageError if there are none for it."""
    for path in files("asterisk.apps.dedup").joinpath("calibrations").iterdir():
        table = json.loads(path.read_text("utf-8"))
        if share_space((fingerprint,), table["fingerprints"]):
            return [Point(*values) for values in table["points"]]
    raise UsageError(
        "no calibration ships for this model: give --labelled PAIRS.tsv, or a --threshold"
    )


def default_threshold(fingerprint: str) -> float:
    """Return an embedding space's threshold for `PRECISION`, or `THRESHOLD` if none ships."""
    try:
        points = shipped_points(fingerprint)
    except UsageError:
        return THRESHOLD
    return choose(points, PRECISION, "shipped calibration").threshold


def judged_cosines(
    path: Path, runtime: Runtime, prompt_name: str | None = None
) -> tuple[list[float], list[bool]]:
    """Return the cosine of each judged pair, as deduplication computes it, and the judgement.

    A line is 1 or 0, text, text, separated by tabs. InputError names a line that is none, a file
    that cannot be read or holds no pairs, and a text without words.
    """
    pairs = []
    for position, line in lines(path):
        cells = line.split("\t")
        if cells == [""]:
            continue
        if len(cells) != 3 or cells[0] not in ("0", "1") or not all(map(str.strip, cells)):
            raise InputError(f"{position}: not 0 or 1, a text, and a text")
        pairs.append((cells[0] == "1", normalize(cells[1]), normalize(cells[2])))
    if not pairs:
        raise InputError(f"{path} holds no pairs")
    for number, (_, *forms) in enumerate(pairs, 1):
        if not all(forms):
            raise InputError(f"{path}, pair {number}: a text without any words")
    same, *sides = zip(*pairs, strict=True)
    numbers = {form: number for number, form in enumerate(dict.fromkeys(sides[0] + sides[1]))}
    vectors = Vectors(to_int8(runtime.encode(list(numbers), prompt_name=prompt_name)))
    rows = [np.array([numbers[form] for form in side]) for side in sides]
    return vectors.of_pairs(*rows).tolist(), list(same)
