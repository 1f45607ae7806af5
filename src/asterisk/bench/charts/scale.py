"""From figures to pixels, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

ASKS = 6.0  # largest over smallest from which a logarithmic scale shows more
MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """Figures from ``low`` to ``high`` on pixels from ``start`` to ``end``; outside is clipped."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        """Return the pixel of ``value``."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round figures within the scale, at least one and at most about eight."""
        if not self.log:
            step = _step((self.high - self.low) / (MOST_TICKS - 3))
            first = math.ceil(self.low / step)
            return [n * step for n in range(first, math.floor(self.high / step) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [
                digit * 10.0**power
                for power in decades
                for digit in digits
                if self.low <= digit * 10.0**power <= self.high
            ]
            if len(found) <= MOST_TICKS:
                return found or [self.low]
        return found[:: math.ceil(len(found) / MOST_TICKS)]


def fit(values: Iterable[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """Return a scale that holds the usable ``values``, logarithmic where their range asks for it.

    ``zero`` begins a linear one at nought. ValueError without a usable value.
    """
    known = [value for value in values if usable(value)]
    if not known:
        raise ValueError("no figure to draw")
    low, high = min(known), max(known)
    if high / low > ASKS:
        edge = (high / low) ** 0.06
        return Scale(low / edge, high * edge, start, end, log=True)
    if zero:
        return Scale(0.0, high * 1.05, start, end, log=False)
    edge = (high - low) * 0.12 or high * 0.3
    return Scale(max(0.0, low - edge), high + edge, start, end, log=False)


def usable(value: float | None) -> bool:
    """Return whether ``value`` can be drawn: there, finite, above nought and not beyond reason."""
    return value is not None and 1e-9 < value < 1e18  # False for NaN too


def compact(value: float) -> str:
    """Return a tick's figure as short as can be."""
    return f"{value:,.0f}" if 1000 <= value < 1e7 else f"{value:.3g}"


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(n for n in (1, 2, 2.5, 5, 10) if n * power >= rough) * power)
