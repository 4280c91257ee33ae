"""Rows of several seeds as one figure: the mean with Student's t interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

from experiments.results import ResultsError, Row


def t_probability(angle: float, degrees: int) -> float:
    """P(|T| <= t) of Student's t at angle = atan(t / sqrt(degrees)).

    The finite sums of Abramowitz and Stegun, 26.7.3 (odd degrees) and 26.7.4 (even).
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| <= t) = level, by bisection on the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if t_probability(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees)


def over_seeds(rows: Sequence[Row]) -> Row:
    """One row for runs that differ only in their seed; a single row is returned as it is.

    Raises:
      ResultsError: the runs differ in n or level, or one is a summary already.
    """
    first = rows[0]
    if len(rows) == 1:
        return first
    if any((row.n, row.level, row.n_seeds) != (first.n, first.level, 1) for row in rows):
        raise ResultsError(
            f"{first.metric} of {first.experiment!r}: the rows of its {len(rows)} seeds differ in "
            "n or level, or hold several seeds already"
        )
    values = [row.value for row in rows]
    mean = fmean(values)
    half = t_quantile(first.level, len(rows) - 1) * stdev(values) / math.sqrt(len(rows))
    agree = min(values) == max(values)  # by chance, which is no certainty
    return replace(
        first,
        value=mean,
        low=math.nan if agree else mean - half,
        high=math.nan if agree else mean + half,
        n_seeds=len(rows),
        seed="",
        covers="seed",
        method="no interval: all seeds agree" if agree else "Student's t",
    )
