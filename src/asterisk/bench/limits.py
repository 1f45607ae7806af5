"""What counts as worse: ``--fail-on p50:5%,pss:3%,cosine:0.995,size:1%,instructions:1%``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asterisk.common.errors import UsageError

TESTED = ("p50", "pss")  # told from noise by a test over processes
NAMES = (*TESTED, "cosine", "overlap", "size", "instructions")  # the others are exact
FLOORS = ("cosine", "overlap")
BYTES = ("pss", "size")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_MB = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)MB")
_SHARE = re.compile(r"(0?\.[0-9]{1,9}|1(?:\.0{1,9})?)")


@dataclass(frozen=True, slots=True)
class Limit:
    """By how much a figure may get worse.

    ``share`` of the old one or, if given, ``amount``: in MB where the figure is bytes. One that
    must not be small has instead a ``floor`` below which it must never be, and may drop by
    ``amount``.
    """

    share: float = 0.0
    amount: float | None = None
    floor: float | None = None

    def exceeded(self, old: float, new: float) -> bool:
        """Tell whether ``new`` is more than ``old`` by more than allowed; ``old`` positive."""
        return new - old > self.amount if self.amount is not None else new > old * (1 + self.share)


# A different CPU rounds differently, by less than these; a recipe that lost something, by more.
DEFAULTS: Mapping[str, Limit] = {
    "p50": Limit(0.05),
    "pss": Limit(0.03),
    "cosine": Limit(amount=0.001, floor=0.0),
    "overlap": Limit(amount=0.01, floor=0.0),
    "size": Limit(0.01),
    "instructions": Limit(0.01),
}


def parse(text: str) -> dict[str, Limit]:
    """Read ``name:limit`` pairs with commas between; UsageError, one line, for anything else."""
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        name, colon, told = part.strip().partition(":")
        if name not in NAMES or not colon:
            raise UsageError(
                f"--fail-on takes name:limit with commas between, not {part[:40]!r}; "
                f"there are: {', '.join(NAMES)}"
            )
        if name in limits:
            raise UsageError(f"--fail-on has {name} twice")
        limits[name] = _limit(name, told)
    return limits


def _limit(name: str, told: str) -> Limit:
    if name in FLOORS:
        found = _SHARE.fullmatch(told)
        if found:
            return Limit(amount=DEFAULTS[name].amount, floor=float(found[1]))
        raise UsageError(
            f"--fail-on {name} takes the least it may be, 0.995 say, not {told[:40]!r}"
        )
    percent, amount = _PERCENT.fullmatch(told), _MB.fullmatch(told)
    if percent:
        return Limit(share=float(percent[1]) / 100)
    if amount and name in BYTES:
        return Limit(amount=float(amount[1]))
    or_bytes = " or 5MB" if name in BYTES else ""
    raise UsageError(f"--fail-on {name} takes a percentage, 5%{or_bytes}, not {told[:40]!r}")
