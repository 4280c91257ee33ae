"""From values to pixels: scales and round numbers for their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOG_FROM_RATIO = 30.0


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map of `[low, high]` onto pixels `[start, end]`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel at `value`."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class Domain:
    """Ends of an axis and the values marked on it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False


def round_ticks(low: float, high: float, count: int = 4) -> tuple[float, ...]:
    """About `count` multiples of 1, 2, 2.5 or 5 × 10^k that enclose `[low, high]`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(k * step for k in range(first, last + 1))


def domain_from_zero(values: Sequence[float]) -> Domain:
    """An axis for magnitudes: from zero, or logarithmic where that would hide most of them.

    Logarithmic if all values are positive and the largest is more than `LOG_FROM_RATIO`
    times the smallest.
    """
    smallest, largest = min(values), max(values)
    if smallest > 0 and largest > LOG_FROM_RATIO * smallest:
        first, last = math.floor(math.log10(smallest)), math.ceil(math.log10(largest))
        every = max(1, math.ceil((last - first) / 4))
        ticks = tuple(10.0**k for k in range(first, last + 1, every))
        return Domain(10.0**first, 10.0**last, ticks, log=True)
    ticks = round_ticks(min(0.0, smallest), max(0.0, largest))
    return Domain(ticks[0], ticks[-1], ticks)


def domain_of_fractions(values: Sequence[float]) -> Domain:
    """An axis for accuracies: from a round number below the smallest up to at most 1."""
    low, high = min(values), max(values)
    if high - low < 0.01:
        low, high = max(0.0, low - 0.01), min(1.0, high + 0.01)
    ticks = round_ticks(low, high)
    kept = tuple(tick for tick in ticks if -1e-9 <= tick <= 1 + 1e-9)
    return Domain(kept[0], kept[-1], kept)


def whole_ticks(low: int, high: int, count: int = 5) -> tuple[int, ...]:
    """The ends and at most `count` round whole numbers between them."""
    if high == low:
        return (low,)
    step = max(1, round(round_ticks(0, high - low, count)[1]))
    inner = [k for k in range(-(-low // step) * step, high, step) if k - low >= 0.5 * step]
    return (low, *(k for k in inner if high - k >= 0.5 * step and k > low), high)
