"""Numbers that tell two texts apart, which a vector hardly sees.

"Three dead" and "seven dead" in words are left to the model; what is compared is digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from asterisk.apps.dedup.normal import normal
from asterisk.apps.dedup.stars import stars
from asterisk.apps.dedup.vectors import Places, Vectors

DIFFER, IGNORE = NUMBERS = ("differ", "ignore")
Numbers = tuple[str, ...]
NumbersOf = Callable[[int], Numbers]

_SIGNS = re.compile(r"[^\w\s]+")
_DIGITS = re.compile(r"\d+")


def numbers(text: str) -> Numbers:
    """Return the runs of digits in the normal form of ``text``, sorted.

    Punctuation is taken out first, so that 1,000 is 1000 and 2.5 is 25 (a feed that drops
    punctuation makes it that); zeros in front do not count.
    """
    found = _DIGITS.findall(_SIGNS.sub("", normal(text)))
    return tuple(sorted(digits.lstrip("0") or "0" for digits in found))


def contradict(one: Numbers, other: Numbers) -> bool:
    """Return whether each has a number that the other lacks, as often as it is there.

    A cut end takes numbers away and boilerplate brings some along: one side only, and no
    contradiction. A changed number is missing on both.
    """
    if one == other:
        return False
    mine, its = Counter(one), Counter(other)
    return bool(mine - its) and bool(its - mine)


def agreeing(
    vectors: Vectors, rows: Places, place: int, threshold: float, of: NumbersOf
) -> Iterator[tuple[Places, int]]:
    """Yield the star ``rows`` without those that contradict its ``place``-th, then stars of those.

    What leaves is parted again among rows with the very same numbers, so that one pass settles a
    crowd in which every row differs.
    """
    own = of(int(rows[place]))
    stay, apart = list[int](), dict[Numbers, list[int]]()
    for row in rows.tolist():
        its = of(row)
        (apart.setdefault(its, []) if contradict(own, its) else stay).append(row)
    yield np.array(stay), stay.index(int(rows[place]))
    for same in apart.values():
        group = np.array(same)
        # Two rows of a star reach its centre, not always one another.
        if len(group) > 2 or (
            len(group) == 2 and vectors.between(group[:1], group[1:]).min() >= threshold
        ):
            yield from stars(vectors, group, threshold)
