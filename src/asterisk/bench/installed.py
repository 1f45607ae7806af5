"""What a row's packages weigh on disk. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

BASE = ("numpy",)  # what every installation has anyway
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def weigh(names: Iterable[str]) -> dict[str, int] | None:
    """Return ``bytes`` of the distributions and all they require, and ``base``: numpy's share.

    None if one of ``names`` is not installed. A requirement that is not installed, because its
    condition does not hold here, counts nothing.
    """
    found: dict[str, int] = {}
    waiting = list(names)
    try:
        for name in waiting:
            distribution(name)
    except PackageNotFoundError:
        return None
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[key] = size(package)
        waiting += required(package.requires or ())
    return {"bytes": sum(found.values()), "base": sum(found.get(name, 0) for name in BASE)}


def required(lines: Iterable[str]) -> list[str]:
    """Return the names in requirement lines, without those of extras."""
    matches = (_NAME.match(line) for line in lines if "extra ==" not in line)
    return [match.group() for match in matches if match]


def size(package: Distribution) -> int:
    """Return the bytes of a distribution's files that are there."""
    paths = (file.locate() for file in package.files or ())
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size  # type: ignore[attr-defined]
        except OSError:
            continue
    return total
