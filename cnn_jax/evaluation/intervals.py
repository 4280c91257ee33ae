"""Confidence intervals: Wilson's for a proportion, the bootstrap for everything else.

A statistic is a function of *weights*, not of examples: a bootstrap resample is the same
examples, each counted as often as its group was drawn. One matrix of weights then serves
every statistic, and sorting or binning is done once instead of once per resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.estimate import Estimate, Unit

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights float64 `[N, R]` (one column per resample) to values float64 `[R]`.

NaN stands for undefined, such as an AUROC without positives.
"""

# 32 MB of float64 weights at a time: small beside the data, large enough to be vectorised.
_WEIGHTS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn with replacement: single examples, or whole groups of them.

    Attributes:
      index: int64 `[N]`, the unit each example belongs to, in 0..count - 1.
      count: number of distinct units.
      name: `group` if some unit holds more than one example, else `example`.
    """

    index: np.ndarray
    count: int
    name: Unit

    @classmethod
    def of(cls, n: int, groups: np.ndarray | None = None) -> Units:
        """The units of n examples; without groups each example is its own.

        Raises:
          EvaluationError: there are no examples, or not one group per example.
        """
        if n == 0:
            raise EvaluationError("no examples to evaluate: the split is empty")
        if groups is None:
            return cls(index=np.arange(n), count=n, name="example")
        if len(groups) != n:
            raise EvaluationError(f"{n} examples but {len(groups)} groups: give one per example")
        names, index = np.unique(groups, return_inverse=True)
        return cls(index=index, count=len(names), name="example" if len(names) == n else "group")


def wilson(
    successes: np.ndarray | float, n: np.ndarray | float, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The score interval of a proportion, float64 of the inputs' shape: its low and high ends.

    Wilson (1927): (s + z²/2 ± z √(s (n - s) / n + z²/4)) / (n + z²), where z is the normal
    quantile of 1 - (1 - level)/2. Without trials (n = 0) it is [0, 1].

    Raises:
      EvaluationError: the level is not strictly between 0 and 1.
    """
    _check_level(level)
    s, trials = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (s + z**2 / 2) / (trials + z**2)
    half = z * np.sqrt(s * (trials - s) / np.maximum(trials, 1) + z**2 / 4) / (trials + z**2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def resampling_weights(units: Units, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example occurs in each resample: chunks float64 `[N, r]`, r summing to R.

    As many units as there are are drawn with replacement. The draws depend on the number of
    units and the seed only, never on the size of the chunks.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, _WEIGHTS_AT_ONCE // len(units.index))
    for start in range(0, resamples, chunk):
        r = min(chunk, resamples - start)
        drawn = generator.integers(0, units.count, size=(r, units.count))
        drawn += units.count * np.arange(r)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=r * units.count).reshape(r, units.count)
        yield counts.T.astype(np.float64)[units.index]


def bootstrap(
    statistics: Mapping[str, Statistic],
    n: int,
    groups: np.ndarray | None = None,
    *,
    basic: Collection[str] = (),
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each statistic of n examples with its bootstrap interval.

    The value is the statistic at weights of one. The ends of the percentile interval are
    quantiles q of the statistic over resamples of whole groups (of examples without groups);
    those of the basic interval are 2 value - q, which corrects for a bias of the statistic that
    its resamples repeat. All statistics see the same resamples. A resample in which a statistic
    is undefined does not count for it, and `Estimate.method` says how many there were.

    Args:
      statistics: name -> function of weights.
      n: number of examples.
      groups: `[N]` or None.
      basic: names of the statistics, none of them negative, that get the basic interval, cut
        off at 0; the others get the percentile interval.
      level: confidence level.
      resamples: number of resamples.
      seed: of the draws.

    Raises:
      EvaluationError: no examples, a level outside (0, 1), or no resamples.
    """
    _check_level(level)
    if resamples < 1:
        raise EvaluationError(f"resamples must be at least 1, not {resamples}")
    units = Units.of(n, groups)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for weights in resampling_weights(units, resamples, seed):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    ones = np.ones((n, 1))
    return {
        name: _estimate(
            float(statistic(ones)[0]), np.concatenate(drawn[name]), units, level, name in basic
        )
        for name, statistic in statistics.items()
    }


def add_note(estimate: Estimate, note: str) -> Estimate:
    """The estimate with a note appended to its method."""
    return replace(estimate, method=f"{estimate.method}; {note}")


def _estimate(
    value: float, resampled: np.ndarray, units: Units, level: float, basic: bool
) -> Estimate:
    n = len(units.index)
    defined = resampled[~np.isnan(resampled)]
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, "undefined", level, units.name)
    if units.count == 1 or len(defined) == 0:
        method = f"no interval: a single {units.name}" if units.count == 1 else "no interval"
        return Estimate(value, math.nan, math.nan, n, method, level, units.name)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    if basic:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    method = f"bootstrap ({'basic' if basic else 'percentile'})"
    if len(defined) < len(resampled):
        method += f"; undefined in {len(resampled) - len(defined)} of {len(resampled)} resamples"
    return Estimate(value, low, high, n, method, level, units.name)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise EvaluationError(f"level must be between 0 and 1, such as 0.95, not {level}")
