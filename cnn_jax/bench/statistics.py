"""The median of pair ratios and an interval for it that assumes no distribution.

Pure functions of seconds; no clock. Only the standard library.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cnn_jax.errors import BenchmarkError

LEVEL = 0.95
FEWEST_PAIRS = 6  # with five, even the interval from least to largest covers only 93.75 %


@dataclass(frozen=True)
class PairedRatio:
    """How many times as long one rival takes as another.

    Attributes:
      ratio: median over the pairs of seconds divided by reference seconds.
      low, high: ends of a 95 % interval of that median.
      seconds, reference_seconds: medians of one call of each.
      pairs: number of pairs.
    """

    ratio: float
    low: float
    high: float
    seconds: float
    reference_seconds: float
    pairs: int


def paired_ratio(seconds: Sequence[float], reference_seconds: Sequence[float]) -> PairedRatio:
    """Compare two rivals that were timed in the same rounds.

    Args:
      seconds: of one call, a value for each round.
      reference_seconds: of one call of the reference, in the same rounds.

    Raises:
      BenchmarkError: fewer than `FEWEST_PAIRS` pairs, different numbers, or a time that is
        not positive and finite.
    """
    times = (*seconds, *reference_seconds)
    if len(seconds) != len(reference_seconds) or len(seconds) < FEWEST_PAIRS:
        raise BenchmarkError(
            f"{len(seconds)} and {len(reference_seconds)} times make no {FEWEST_PAIRS} pairs, "
            "the fewest that have a 95 % interval"
        )
    if not all(0 < time < math.inf for time in times):
        raise BenchmarkError(f"times must be positive and finite, not {min(times)} s")
    ratios = [time / other for time, other in zip(seconds, reference_seconds, strict=True)]
    low, high = median_interval(ratios)
    return PairedRatio(
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        seconds=statistics.median(seconds),
        reference_seconds=statistics.median(reference_seconds),
        pairs=len(ratios),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the median that inverts the sign test.

    Of n independent values, the number B below the true median is binomial(n, 1/2), so the
    k-th smallest and the k-th largest value enclose the median with probability
    1 - 2 P(B < k), whatever the distribution. k is the largest for which this is at least
    95 %: 2 for 10 pairs (97.9 %), 6 for 20 (95.9 %).

    Raises:
      BenchmarkError: fewer than `FEWEST_PAIRS` values.
    """
    n = len(values)
    if n < FEWEST_PAIRS:
        raise BenchmarkError(f"{n} values have no 95 % interval of their median: take more pairs")
    tail, k = 0.0, 0  # P(B < k)
    while 2 * (tail + math.comb(n, k) / 2**n) <= 1 - LEVEL:
        tail += math.comb(n, k) / 2**n
        k += 1
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]
